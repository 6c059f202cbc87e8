# Builds the three wheels and an environment from the lock, then copies the environment alone.
FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/onbelay \
 && /opt/onbelay/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && python -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml LICENSE README.md CHANGELOG.md ./
COPY src src
COPY gen/python gen/python
COPY clients/python clients/python
RUN for project in src/onbelay_agent clients/python .; do \
      /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheels "$project" || exit 1; \
    done \
 && /opt/onbelay/bin/pip install --no-cache-dir --no-deps /tmp/wheels/*.whl \
 && /opt/onbelay/bin/pip check

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 onbelay \
 && install -d -o onbelay -g onbelay /data
COPY --from=build /opt/onbelay /opt/onbelay
ENV PATH=/opt/onbelay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    ONBELAY_STATE_DIR=/data \
    ONBELAY_LISTEN=0.0.0.0:50051 \
    ONBELAY_HTTP=0.0.0.0:8080
USER onbelay
WORKDIR /data
VOLUME /data
EXPOSE 50051 8080
# A drain may take its grace: give the process longer than that before it is killed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2).close()"]
ENTRYPOINT ["onbelay"]
# Inside the container every interface is needed; TLS ends here (--tls-cert) or at a proxy in front.
CMD ["serve", "--insecure"]
