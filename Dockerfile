# The image of every engine, the venue and the setup job: docker build --tag botplatform .
# Its packages, and those that build its wheel, are locked with hashes in requirements/.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=1767225600
WORKDIR /build
COPY requirements/*.lock requirements/
RUN pip install --no-deps --only-binary :all: --require-hashes --requirement requirements/build.lock && \
    pip wheel --no-build-isolation --no-deps --only-binary :all: --no-binary nkeys --require-hashes \
        --requirement requirements/image.lock --wheel-dir wheels && \
    python -m venv --without-pip /opt/botplatform && \
    pip --python /opt/botplatform/bin/python install --no-deps --no-index wheels/*.whl
COPY LICENSE README.md buf.yaml hatch_build.py pyproject.toml ./
COPY proto proto
COPY src src
RUN pip wheel --no-build-isolation --no-deps --wheel-dir dist . && \
    pip --python /opt/botplatform/bin/python install --no-deps --no-index dist/*.whl
# The root file system is read-only, so that nothing could be compiled later, and each start would compile all of it.
# What is compiled here never looks at the times of its sources again: the same sources give the same image.
RUN find /opt/botplatform -depth -type d -name tests -path '*/site-packages/*' -exec rm -rf {} + && \
    /opt/botplatform/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/botplatform/lib

FROM ${PYTHON_IMAGE}
# The base image has its own library uncompiled: that is half of the time of each start.
RUN python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(ensurepip|idlelib|lib2to3|pydoc_data|site-packages|test|tkinter|turtledemo)/' "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/botplatform /opt/botplatform
# A user of any number has a name for the record, and a home to write to wherever a volume is mounted at /data.
ENV PATH=/opt/botplatform/bin:$PATH LOGNAME=botplatform HOME=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN install --directory --owner 10001 --group 10001 /data
WORKDIR /data
USER 10001:10001
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="botplatform" \
      org.opencontainers.image.description="An event-driven trading platform: engines that talk through events alone, on NATS JetStream." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENTRYPOINT ["botplatform"]
CMD ["--help"]
