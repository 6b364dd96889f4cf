"""A directory of files → Policies, or every mistake in it.

`tenants/*.yaml` are the tenants, `templates/*.yaml` what they extend. Templates merge root first: maps merge,
scalars and lists replace, and every value keeps the place it came from, so that a mistake names its true line.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from service.policy.compile import Compiling
from service.policy.complaints import explained
from service.policy.model import TenantFile
from service.policy.outside import Defaults, FileState
from service.policy.source import Mistake, Place, Route, Source, SourceError, read_source
from service.policy.tenant import Pages, Policies, Tenant
from service.principal import ServiceKey, Trust


class PolicyError(ValueError):
    """The files are wrong; nothing of them is applied. *secret_files*: see `Policies`."""

    def __init__(self, mistakes: list[Mistake], secret_files: Mapping[Path, FileState] | None = None) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes
        self.secret_files = secret_files or {}


@dataclass(slots=True)
class Merged:
    """A tree put together from several files, and where each value of it was written."""

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Route, tuple[str, Place]] = field(default_factory=dict)

    def put(self, source: Source) -> None:
        """Merge *source* over what is here."""
        replaced: set[Route] = set()
        _merge(self.tree, source.tree, (), replaced)
        for route in [route for route in self.places if any(route[:n] in replaced for n in range(1, len(route)))]:
            del self.places[route]
        self.places |= {route: (source.file, place) for route, place in source.places.items()}

    def mistake(self, route: Route, message: str) -> Mistake:
        """Return a mistake at the value at *route*, or at the nearest thing around it that was written."""
        file, (line, column) = self._written(route)
        return Mistake(file, line, column, message)

    def layer(self, route: Route) -> str:
        """Return who wrote the value at *route*: `tenant`, or `template NAME`."""
        file = Path(self._written(route)[0])
        return f"template {file.stem}" if file.parent.name == "templates" else "tenant"

    def _written(self, route: Route) -> tuple[str, Place]:
        while route and route not in self.places:
            route = route[:-1]
        return self.places[route]


def _merge(below: dict[str, Any], above: Mapping[str, Any], route: Route, replaced: set[Route]) -> None:
    for key, value in above.items():
        if isinstance(value, dict):
            inner = below.get(key)
            fresh: dict[str, Any] = dict(inner) if isinstance(inner, dict) else {}
            _merge(fresh, value, (*route, key), replaced)
            below[key] = fresh
        else:
            replaced.add((*route, key))
            below[key] = value


def load_policies(directory: Path, defaults: Defaults) -> Policies:
    """Load every tenant below *directory*; raise `PolicyError` with all mistakes in all files."""
    mistakes: list[Mistake] = []
    files: dict[Path, FileState] = {}
    defaults = replace(defaults, secret_files=files)
    templates = _read_all(directory / "templates", mistakes)
    sources = _read_all(directory / "tenants", mistakes)
    if not sources and not mistakes:
        mistakes.append(Mistake(str(directory / "tenants"), 1, 1, _no_tenants(directory / "tenants")))
    broken = {Path(mistake.file).stem for mistake in mistakes if Path(mistake.file).parent.name == "templates"}
    tenants: dict[str, Tenant] = {}
    files_of: dict[str, str] = {}
    for source in sources.values():
        if not broken.isdisjoint(_ancestry(source, templates)):
            continue  # told already
        tenant = _load_tenant(source, templates, defaults, mistakes)
        if tenant is None:
            continue
        if tenant.name in tenants:
            line, column = source.places["tenant",]
            told = f"{Path(files_of[tenant.name]).name} is tenant {tenant.name!r} already"
            mistakes.append(Mistake(source.file, line, column, told))
        tenants[tenant.name], files_of[tenant.name] = tenant, source.file
    used = {name for source in sources.values() for name in _ancestry(source, templates)}
    for name in sorted(set(templates) - used - broken):
        _load_tenant(templates[name], templates, defaults, mistakes, template=True)
    if sources and not tenants and not mistakes:
        mistakes.append(Mistake(str(directory / "tenants"), 1, 1, "no tenant is enabled"))
    if mistakes:
        raise PolicyError(sorted(set(mistakes)), files)
    pages = Pages(
        frozenset(origin for tenant in tenants.values() for origin in tenant.pages.origins),
        frozenset(origin for tenant in tenants.values() for origin in tenant.pages.with_cookies),
    )
    with_cookies = tuple(tenant for tenant in tenants.values() if tenant.cookie or tenant.visitors)
    version = _version([*templates.items(), *sources.items()])
    return Policies(tenants, _by_issuer(tenants), pages, _by_key(tenants), with_cookies, version, files)


def _by_key(tenants: Mapping[str, Tenant]) -> dict[bytes, tuple[ServiceKey, ...]]:
    found: dict[bytes, tuple[ServiceKey, ...]] = {}
    for tenant in tenants.values():
        for key in tenant.service_keys:
            found[key.digest] = (*found.get(key.digest, ()), key)
    return found


def _no_tenants(folder: Path) -> str:
    """Return why no tenant file was found."""
    if not folder.is_dir():
        return (
            "there is no such directory; CHATKIT_MINT_CONFIG_DIR, or what `check` is given, is the one above `tenants/`"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        return "can't be read: permission denied"
    return "holds no tenant file (*.yaml)"


def _read_all(folder: Path, mistakes: list[Mistake]) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    others = [path for path in sorted(folder.glob("*.yml")) if not path.name.startswith(".")]
    mistakes += [Mistake(str(path), 1, 1, "is not read: files end in .yaml; rename it") for path in others]
    # A Kubernetes ConfigMap mounts its files as links into a hidden folder: skip the hidden names, follow links.
    for path in sorted(folder.glob("*.yaml")):
        if path.name.startswith(".") or path.name.endswith(".test.yaml"):
            continue
        try:
            sources[path.stem] = read_source(path)
        except SourceError as error:
            mistakes.append(error.mistake)
    return sources


STAND_INS: Final[Mapping[str, Any]] = {
    "tenant": "unnamed",
    "identity": [{"issuer": "https://login.example/", "audience": "app", "algorithms": ["ES256"]}],
    "session": {"workflow": {"id": "wf"}},
}
"""For what is required and wrong, so that one run tells the mistakes in the rest too."""


def _load_tenant(
    source: Source,
    templates: Mapping[str, Source],
    defaults: Defaults,
    mistakes: list[Mistake],
    *,
    template: bool = False,
) -> Tenant | None:
    """Return a file's tenant; None where it is wrong or not enabled. A *template* alone need not be complete."""
    before = len(mistakes)
    merged = Merged()
    for layer in _layers(source, templates, mistakes):
        merged.put(layer)
    tree = {key: value for key, value in merged.tree.items() if key != "extends"}
    if template:
        tree = {**STAND_INS, **tree}
        session = tree["session"]
        workflow = session.get("workflow", {}) if isinstance(session, dict) else None
        if isinstance(workflow, dict):
            tree["session"] = {**session, "workflow": {"id": "wf", **workflow}}
    elif "tenant" not in source.tree:
        mistakes.append(Mistake(source.file, 1, 1, "names no tenant; add `tenant: NAME`"))
    try:
        file = TenantFile.model_validate(tree)
    except ValidationError as error:
        mistakes += explained(error, merged.places, merged.mistake)
        wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
        sound = {key: value for key, value in tree.items() if key not in wrong}
        file = TenantFile.model_validate({**STAND_INS, **sound})
    if template or not file.enabled:
        defaults = replace(defaults, secrets_needed=False)  # nobody will use them
    tenant = Compiling(file, merged.mistake, merged.layer, mistakes, defaults).tenant()
    return tenant if len(mistakes) == before and file.enabled else None


def _ancestry(source: Source, templates: Mapping[str, Source]) -> list[str]:
    names: list[str] = []
    parent = source.tree.get("extends")
    while isinstance(parent, str) and parent not in names:
        names.append(parent)
        parent = templates[parent].tree.get("extends") if parent in templates else None
    return names


def _layers(source: Source, templates: Mapping[str, Source], mistakes: list[Mistake]) -> list[Source]:
    """Return the file and what it extends, root first."""
    layers, seen = [source], [Path(source.file).stem]
    while (parent := layers[0].tree.get("extends")) is not None:
        here = layers[0]
        place = here.places["extends",]
        if not isinstance(parent, str) or parent not in templates:
            near = get_close_matches(str(parent), templates, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(templates) or 'none'}"
            mistakes.append(Mistake(here.file, *place, f"there is no template {parent!r}{hint}"))
            break
        if templates[parent] in layers:
            mistakes.append(Mistake(here.file, *place, f"extends itself: {' → '.join([*seen, parent])}"))
            break
        seen.append(parent)
        layers.insert(0, templates[parent])
    return layers


def _by_issuer(tenants: Mapping[str, Tenant]) -> dict[str, tuple[Trust, ...]]:
    index: dict[str, list[Trust]] = {}
    for tenant in tenants.values():
        for trust in tenant.trusts:
            index.setdefault(trust.issuer, []).append(trust)
    return {issuer: tuple(trusts) for issuer, trusts in index.items()}


def _version(sources: Iterable[tuple[str, Source]]) -> str:
    """Return a name for what was read, the same on every replica that read the same."""
    digest = hashlib.sha256()
    for name, source in sources:
        digest.update(name.encode() + b"\0" + source.digest)
    return digest.hexdigest()[:12]
