"""The attack corpus: for every algorithm family, tokens that must be refused, each with its valid twin."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from support.forge import as_bytes, encode, sign, unsigned
from support.tokens import Signer, make_key

FAMILIES = ("RS256", "PS384", "ES256", "ES384", "EdDSA", "HS256")
SECRET = b"a shared secret of forty bytes, or so...."


@dataclass(frozen=True)
class Family:
    """An issuer that signs with one algorithm; *stranger* is another issuer with the same `kid`."""

    alg: str
    signer: Signer
    stranger: Signer

    @property
    def key(self) -> Any:
        return SECRET if self.alg == "HS256" else self.signer.key

    @property
    def strange_key(self) -> Any:
        return b"another secret, just as long as the first" if self.alg == "HS256" else self.stranger.key

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": self.alg, "kid": "k1", "typ": "JWT"}

    def claims(self, **changes: Any) -> dict[str, Any]:
        return self.signer.claims("alice", **changes)

    def token(self, header: Any = None, payload: Any = None, key: Any = None) -> str:
        """Signed with the right key, whatever stands in it."""
        return sign(self.alg, key or self.key, header or self.header, self.claims() if payload is None else payload)


def make_family(alg: str) -> Family:
    issuer, signing = f"https://{alg.lower()}.example/", "ES256" if alg == "HS256" else alg
    return Family(alg, Signer(issuer, "app", alg=signing), Signer("https://stranger.example/", "app", alg=signing))


@dataclass(frozen=True)
class Attack:
    name: str
    forge: Callable[[Family], str]
    twin: Callable[[Family], str] = Family.token
    code: str = "invalid_token"


def _header(name: str, **changes: Any) -> Attack:
    """The header changed and signed with the right key: the signature is no excuse."""
    return Attack(name, lambda f: f.token({**f.header, **changes}))


def _claim(name: str, **changes: Any) -> Attack:
    return Attack(name, lambda f: f.token(payload=f.claims(**changes)))


def _raw_claims(name: str, edit: Callable[[str], str | bytes]) -> Attack:
    return Attack(name, lambda f: f.token(payload=as_bytes(_to_bytes(edit(json.dumps(f.claims()))))))


def _to_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _with(claim: str, literal: str) -> Callable[[str], str]:
    """Put a JSON literal in, as no library would write it."""
    return lambda text: text[:-1] + f', "{claim}": {literal}}}'


def _without(claim: str, literal: str) -> Attack:
    def forge(f: Family) -> str:
        text = json.dumps(f.claims(**{claim: None}))
        return f.token(payload=_with(claim, literal)(text).encode())

    return Attack(f"{claim} is {literal[:20]}", forge)


def _segments(name: str, edit: Callable[[list[str]], str]) -> Attack:
    return Attack(name, lambda f: edit(f.token().split(".")))


def _public_bytes(f: Family) -> list[bytes]:
    """The public key in every form that a confused verifier might take for a secret."""
    public = f.signer.key.public_key()
    forms = [
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    return [*forms, forms[0].strip(), json.dumps(f.signer.jwk).encode()]


def _confused(form: int) -> Attack:
    def forge(f: Family) -> str:
        header = {**f.header, "alg": "HS256"}
        signing_input = f"{encode(as_bytes(header))}.{encode(as_bytes(f.claims()))}"
        mac = hmac.digest(_public_bytes(f)[form], signing_input.encode(), hashlib.sha256)
        return f"{signing_input}.{encode(mac)}"

    return Attack(f"HS256 keyed with the public key, form {form}", forge)


def _der_signature(f: Family) -> str:
    head, _, signature = f.token().rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    if not f.alg.startswith("ES"):
        return f"{head}.{encode(encode_dss_signature(1, 1))}"
    half = len(raw) // 2
    der = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    assert decode_dss_signature(der)
    return f"{head}.{encode(der)}"


def _wrong_curve(f: Family) -> str:
    other = "ES256" if f.alg == "ES384" else "ES384"
    return sign(other, make_key(other), {**f.header, "alg": f.alg}, f.claims())


def _embedded(name: str, make: Callable[[Family, Signer], dict[str, Any]]) -> Attack:
    """The attacker's own key comes along in the header. Its twin has the same header and the issuer's signature."""

    def forge(f: Family) -> str:
        attacker = Signer(alg="ES256", kid="k1")
        return sign("ES256", attacker.key, {**f.header, "alg": "ES256", **make(f, attacker)}, f.claims())

    return Attack(name, forge, lambda f: f.token({**f.header, **make(f, Signer(alg="ES256", kid="k1"))}))


def _flip(segment: str) -> str:
    """Change a letter in the middle: the last one may carry bits that mean nothing."""
    middle = len(segment) // 2
    return segment[:middle] + ("A" if segment[middle] != "A" else "B") + segment[middle + 1 :]


def _with_spare_bits(segment: str) -> str:
    """The same bytes in another spelling: the last letter's unused bits are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if len(segment) % 4 == 0:
        return segment + "===="
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) | 1]


def _json_form(f: Family, *, flattened: bool) -> str:
    protected, payload, signature = f.token().split(".")
    if flattened:
        return json.dumps({"protected": protected, "payload": payload, "signature": signature})
    return json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]})


def _other_alg(f: Family) -> str:
    """Truly signed by the issuer's own key, with an algorithm that the tenant does not allow."""
    other = {"RS256": "RS512", "PS384": "RS256", "HS256": "HS512"}.get(f.alg, "ES512")
    key = f.key if f.alg in ("RS256", "PS384", "HS256") else ec.generate_private_key(ec.SECP521R1())
    return sign(other, key, {**f.header, "alg": other}, f.claims())


def _none(spelling: str, what: str, signature: bytes) -> Attack:
    return Attack(f"alg {spelling!r}, {what}", lambda f: unsigned({**f.header, "alg": spelling}, f.claims(), signature))


NONE = [
    _none(spelling, what, signature)
    for spelling in ("none", "None", "NONE", "nOnE", "none ", "")
    for what, signature in (("no signature", b""), ("some signature", b"x" * 64))
]

ALGORITHM = [
    *(_confused(form) for form in range(4)),
    Attack("HS256 with an empty secret", lambda f: unsigned({**f.header, "alg": "HS256"}, f.claims(), b"\0" * 32)),
    Attack("an algorithm that is not allowed", _other_alg),
    _header("alg is a number", alg=256),
    _header("alg is a list", alg=["RS256"]),
    _header("alg is null", alg=None),
    Attack("alg in lower case", lambda f: f.token({**f.header, "alg": f.alg.lower()})),
    Attack("alg absent", lambda f: f.token({"kid": "k1", "typ": "JWT"})),
    Attack("alg of another family", lambda f: f.token({**f.header, "alg": "ES256K"})),
]

SIGNATURE = [
    _segments("signature stripped", lambda s: f"{s[0]}.{s[1]}."),
    _segments("signature and its dot stripped", lambda s: f"{s[0]}.{s[1]}"),
    _segments("signature truncated", lambda s: f"{s[0]}.{s[1]}.{s[2][:-4]}"),
    _segments("signature doubled", lambda s: f"{s[0]}.{s[1]}.{s[2]}{s[2]}"),
    _segments("signature of zeros", lambda s: f"{s[0]}.{s[1]}.{'A' * len(s[2])}"),
    _segments("one letter of the signature changed", lambda s: f"{s[0]}.{s[1]}.{_flip(s[2])}"),
    _segments("one letter of the payload changed", lambda s: f"{s[0]}.{_flip(s[1])}.{s[2]}"),
    Attack("signed by another issuer with the same kid", lambda f: f.token(key=f.strange_key)),
    Attack(
        "another token's signature",
        lambda f: ".".join([*f.token().split(".")[:2], f.token(payload=f.claims(sub="bob")).split(".")[2]]),
    ),
    Attack("DER in place of a raw signature", _der_signature),
    Attack("signed on another curve", _wrong_curve),
]

FORM = [
    _segments("spare bits set in the signature", lambda s: f"{s[0]}.{s[1]}.{_with_spare_bits(s[2])}"),
    _segments("padded", lambda s: f"{s[0]}.{s[1]}.{s[2]}=="),
    _segments("line break inside", lambda s: f"{s[0]}.{s[1]}.{s[2][:10]}\t{s[2][10:]}"),
    _segments("the other base64 alphabet", lambda s: f"{s[0]}.{s[1]}.+/{s[2][2:]}"),
    _segments("a letter outside every alphabet", lambda s: f"{s[0]}.{s[1]}!.{s[2]}"),
    _segments("four segments", lambda s: f"{s[0]}.{s[1]}.{s[2]}.{s[2]}"),
    _segments("five segments, as a JWE has", lambda s: ".".join([*s, s[1], s[2]])),
    _segments("one segment", lambda s: s[0]),
    Attack("only dots", lambda _: ".."),
    Attack("JSON serialisation", lambda f: _json_form(f, flattened=False)),
    Attack("flattened JSON serialisation", lambda f: _json_form(f, flattened=True)),
    Attack("over 16 KiB", lambda f: f.token(payload=f.claims(filler="x" * 16_384))),
    Attack("header is an array", lambda f: f.token([f.header])),
    Attack("header is a string", lambda f: f.token("alg")),
    Attack("header is no JSON", lambda f: f.token(b"{alg}")),
    Attack("header is not UTF-8", lambda f: f.token(b'{"alg": "\xff"}')),
    Attack("header names alg twice", lambda f: f.token(f'{{"alg": "none", "alg": "{f.alg}", "kid": "k1"}}'.encode())),
    Attack("header names kid twice", lambda f: f.token(f'{{"kid": "x", "alg": "{f.alg}", "kid": "k1"}}'.encode())),
    Attack("header 5,000 levels deep", lambda f: f.token(b'{"alg": "ES256", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
    Attack("payload 5,000 levels deep", lambda f: f.token(payload=b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
    _raw_claims("an otherwise good payload with a claim 300 levels deep", _with("x", "[" * 300 + "]" * 300)),
    Attack("payload is an array", lambda f: f.token(payload=[f.claims()])),
    Attack("payload is no JSON", lambda f: f.token(payload=b"alice")),
    Attack("payload with a BOM", lambda f: f.token(payload=b"\xef\xbb\xbf" + as_bytes(f.claims()))),
    _raw_claims("payload is not UTF-8", lambda text: text.encode().replace(b"alice", b"\xff\xfe")),
    _raw_claims("sub is half a surrogate pair", lambda text: text.replace("alice", "\\ud800")),
    _raw_claims("sub twice", _with("sub", '"bob"')),
    _raw_claims("exp twice", _with("exp", "9999999999")),
    _raw_claims("NaN somewhere", _with("x", "NaN")),
]

HEADER = [
    _header("kid climbs the tree", kid="../../../../dev/null"),
    _header("kid with a NUL", kid="k1\0.pem"),
    _header("kid with SQL", kid="x' UNION SELECT 'secret' --"),
    _header("kid is unknown", kid="k2"),
    _header("kid is a number", kid=1),
    _header("kid is a list", kid=["k1"]),
    _header("kid is long", kid="k" * 300),
    _header("crit with b64", crit=["b64"], b64=False),
    _header("b64 false without crit", b64=False),
    _header("crit with something unknown", crit=["x"], x=1),
    _header("crit is empty", crit=[]),
    _header("crit is a string", crit="exp"),
    _header("typ of a logout token", typ="logout+jwt"),
    _header("typ of a security event", typ="secevent+jwt"),
    _header("typ is a number", typ=1),
    _embedded("jwk embedded", lambda _, a: {"jwk": a.jwk}),
    _embedded("jku points at the attacker", lambda _f, _a: {"jku": "https://attacker.example/jwks.json"}),
    _embedded("x5u points at the attacker", lambda _f, _a: {"x5u": "https://attacker.example/cert.pem"}),
    _embedded("x5c embedded", lambda _f, _a: {"x5c": ["MIIB"]}),
]

TIMES = [
    *(
        _without("exp", literal)
        for literal in ("null", '"9999999999"', "1e400", "-1", "1e30", "true", "[9999999999]", "9" * 400)
    ),
    *(_without("iat", literal) for literal in ("null", '"1"', "true", "-5", "1e400", "{}")),
    *(_without("nbf", literal) for literal in ('"1"', "9999999999", "1e999", "null", "[]")),
    _claim("exp absent", exp=None),
    Attack("expired long ago", lambda f: f.token(payload=f.claims(exp=1_000_000_000)), code="token_expired"),
    _claim("expired, and issued tomorrow", exp=1_000_000_000, iat=9_999_999_999),
    _claim("expired, and not valid yet", exp=1_000_000_000, nbf=9_999_999_999),
    _claim("expired, for another app", exp=1_000_000_000, aud="other"),
    _claim("expired, of nobody", exp=1_000_000_000, sub=None),
    _claim("expired, with an empty sid", exp=1_000_000_000, sid=""),
    _claim("expired, an ID token", exp=1_000_000_000, nonce="n"),
    Attack("expired, by a stranger", lambda f: f.token(payload=f.claims(exp=1_000_000_000), key=f.strange_key)),
    _claim("iat absent", iat=None),
    _claim("issued tomorrow", iat=9_999_999_999),
    _claim("issued long ago", iat=1_000_000_000),
]

PARTIES = [
    _claim("iss absent", iss=None),
    _claim("iss of a stranger", iss="https://stranger.example/"),
    Attack("iss without its slash", lambda f: f.token(payload=f.claims(iss=f.signer.issuer.rstrip("/")))),
    Attack("iss is a list", lambda f: f.token(payload=f.claims(iss=[f.signer.issuer]))),
    _claim("aud absent", aud=None),
    _claim("aud of another app", aud="other"),
    _claim("aud is empty", aud=[]),
    _claim("aud nested", aud=[["app"]]),
    _claim("aud is an object", aud={"app": True}),
    _claim("aud with a number beside", aud=["app", 1]),
    _claim("sub absent", sub=None),
    _claim("sub is empty", sub=""),
    _claim("sub is a number", sub=1),
    _claim("sub is long", sub="x" * 257),
    _claim("sub with a line break", sub="alice\nbob"),
    _claim("sub with a NUL", sub="alice\0bob"),
    _claim("sid with a control character", sid="a\x7f"),
    _claim("sid is a number", sid=1),
    _claim("sid is empty", sid=""),
]

KINDS = [
    _claim("an ID token, by its nonce", nonce="n"),
    _claim("an ID token, by its at_hash", at_hash="x"),
    _claim("an ID token, as Keycloak marks it", typ="ID"),
    _claim("an ID token, as Cognito marks it", token_use="id"),
    _claim("a logout token", events={"http://schemas.openid.net/event/backchannel-logout": {}}),
]

EVERY = [*NONE, *ALGORITHM, *SIGNATURE, *FORM, *HEADER, *TIMES, *PARTIES, *KINDS]


def attacks_on(alg: str) -> list[Attack]:
    """The corpus for one family. A shared secret is one key: there, a `kid` selects nothing and so attacks nothing."""
    harmless = ("kid climbs the tree", "kid with a NUL", "kid with SQL", "kid is unknown") if alg == "HS256" else ()
    return [attack for attack in EVERY if attack.name not in harmless]
