# Two stages: wheels are installed where nothing stays behind, and run where nothing can be built or installed.
# A release is built on a digest: --build-arg PYTHON=python:3.13-slim@sha256:…
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
COPY requirements/runtime.lock /tmp/runtime.lock
RUN python -m venv --without-pip /venv
RUN python -m pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
      --require-hashes --only-binary :all: -r /tmp/runtime.lock
COPY service /app/service
COPY verifier/chatkit_sessions /app/chatkit_sessions
# Compiled here: the service's own root file system is read-only.
RUN python -m compileall -q --invalidation-mode unchecked-hash /venv/lib /app

FROM ${PYTHON}
# The base image's installer stays out of reach of whoever gets in.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
# By number: Kubernetes' runAsNonRoot can't look a name up. Nobody needs an entry in /etc/passwd.
USER 10001:10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CHATKIT_MINT_CONFIG_DIR=/config CHATKIT_MINT_HOST=0.0.0.0 CHATKIT_MINT_OPS_HOST=0.0.0.0
EXPOSE 8080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"CHATKIT_MINT_OPS_PORT\", 9464)}/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
