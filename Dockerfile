# Tunesmith from its wheels: run `make wheels` before `docker build`. docs/docker.md describes the arguments.
ARG PYTHON=3.11.14

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH=2.13.0
ARG TORCH_INDEX=""
ARG EXTRAS=all
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python -m venv /opt/tunesmith
COPY constraints.txt /build/constraints.txt
# torch first and in a layer of its own: it is the largest part, and changes least.
RUN /opt/tunesmith/bin/pip install -c /build/constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${TORCH}"
COPY dist/*.whl /build/dist/
# Each of our distributions comes from its wheel, and never from an index that has the same name.
RUN for wheel in /build/dist/tunesmith_*.whl; do \
      name="${wheel##*/}"; echo "${name%%-*} @ file://${wheel}"; \
    done > /build/ours.txt \
    && umbrella="$(echo /build/dist/tunesmith-*.whl)" \
    && /opt/tunesmith/bin/pip install -c /build/constraints.txt -c /build/ours.txt \
      "torch==${TORCH}" "tunesmith[${EXTRAS}] @ file://${umbrella}" \
    && /opt/tunesmith/bin/tunesmith --version

FROM python:${PYTHON}-slim-bookworm
ARG USER_ID=1000
LABEL org.opencontainers.image.title="Tunesmith" \
      org.opencontainers.image.description="Fine-tune language models from one YAML file" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid "${USER_ID}" --create-home --shell /usr/sbin/nologin tunesmith \
    && install --directory --owner=tunesmith /work /cache /cache/huggingface
COPY --from=build /opt/tunesmith /opt/tunesmith
ENV PATH=/opt/tunesmith/bin:$PATH HF_HOME=/cache/huggingface PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
WORKDIR /work
USER ${USER_ID}
ENTRYPOINT ["tunesmith"]
CMD ["--help"]
