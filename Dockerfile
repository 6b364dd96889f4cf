# Two stages: wheels are installed where nothing stays behind, and run where nothing can be built.
FROM python:3.13-slim AS build
COPY requirements/runtime.lock /tmp/runtime.lock
RUN python -m venv /venv
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r /tmp/runtime.lock

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home mint
COPY --from=build /venv /venv
COPY service /app/service
WORKDIR /app
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CHATKIT_MINT_CONFIG_DIR=/config CHATKIT_MINT_HOST=0.0.0.0 CHATKIT_MINT_OPS_HOST=0.0.0.0
EXPOSE 8080 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"CHATKIT_MINT_OPS_PORT\", 9464)}/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
