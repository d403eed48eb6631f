# The image starts the demo: docker run --rm --network host IMAGE
#
# For your own config, mount its directory and pass its keys in the environment:
#
#   docker run --rm --read-only --stop-timeout 640 -p 8080:8080 --env-file .env \
#     -v "$PWD:/etc/gateway:ro" \
#     IMAGE gateway serve --host 0.0.0.0 --config /etc/gateway/gateway.yaml
#
# The gateway writes nothing to the file system. To keep state, add a volume:
# -v gateway-state:/var/lib/gateway -e GATEWAY_STATE_DIR=/var/lib/gateway
# The health check uses port 8080: keep it inside, and map another port outside.
#
# --build-arg COMMIT=$(git rev-parse --short=12 HEAD) adds the commit to the version of a build that is not a release.
#
# Python in the base image is an optimised build (PGO and LTO); `gateway doctor` warns if that of another base is not.
#
# For a build that can be repeated, pin the base image by its digest. This prints the digest:
#
#   docker buildx imagetools inspect python:3.13-slim --format '{{.Manifest.Digest}}'
#
# Pass it with --build-arg PYTHON_DIGEST=sha256:..., or write it here as the default. Without it the tag decides.

ARG PYTHON_DIGEST=

FROM python:3.13-slim${PYTHON_DIGEST:+@$PYTHON_DIGEST} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/gateway
WORKDIR /src

# Dependencies first: this layer is only built again when the lock changes.
COPY locks/image.lock locks/
RUN pip --python /opt/gateway/bin/python install --only-binary=:all: --require-hashes -r locks/image.lock

# Then the project, as the wheel that users install. Its build tools are in the lock too, and are removed afterwards.
COPY pyproject.toml README.md LICENSE ./
COPY evaluation evaluation
COPY gateway gateway
COPY providers providers
COPY config config
ARG COMMIT=
RUN [ -z "$COMMIT" ] || sed -i -E "s/^((__)?version(__)? = \"[0-9.]+)/\1+g$COMMIT/" pyproject.toml gateway/__init__.py
RUN /opt/gateway/bin/hatchling build --target wheel --directory /dist \
    && pip --python /opt/gateway/bin/python install --no-deps --no-index /dist/*.whl \
    && pip --python /opt/gateway/bin/python uninstall --yes hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && pip --python /opt/gateway/bin/python check

FROM python:3.13-slim${PYTHON_DIGEST:+@$PYTHON_DIGEST}
LABEL org.opencontainers.image.title="assistant-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/gateway /opt/gateway

# A new volume takes the owner of this directory; otherwise the gateway could not write to it.
RUN install -d -m 700 -o 10001 -g 10001 /var/lib/gateway

# A numeric user, so that an orchestrator can check runAsNonRoot.
USER 10001:10001
WORKDIR /
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["gateway", "demo", "--port", "8080"]
