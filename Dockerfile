# ingestd and its tools on Debian 13. Builds with `docker build .`, or without a daemon: `make image`.

ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/ingestd
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The requirements alone first: they change less often than the code.
COPY requirements-build.txt requirements.txt ./
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --require-hashes --no-deps -r requirements-build.txt \
    && /opt/build/bin/pip wheel --quiet --require-hashes --no-deps --no-build-isolation -r requirements.txt \
        --wheel-dir /wheels \
    && /opt/ingestd/bin/pip install --quiet --no-index --no-deps /wheels/*.whl
COPY pyproject.toml README.md LICENSE workflow.json ./
COPY schemas schemas
COPY src src
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/ingestd/bin/pip install --quiet --no-index --no-deps /dist/ingestd-*.whl \
    && /opt/ingestd/bin/pip uninstall --quiet --yes pip

FROM ${BASE}
# The programs that rules and packing call; `ingestd doctor` lists them with their versions.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        7zip bzip2 ca-certificates clamdscan ffmpeg flac fonts-dejavu-core fonts-liberation ghostscript gpg \
        imagemagick inkscape jhove libarchive13t64 libimage-exiftool-perl libraw-bin libreoffice-calc-nogui \
        libreoffice-draw-nogui libreoffice-impress-nogui libreoffice-writer-nogui librsvg2-bin libxml2-utils \
        mediaconch mediainfo pbzip2 pigz poppler-utils pst-utils python3 qpdf sleuthkit tesseract-ocr \
        tesseract-ocr-eng tini unar xz-utils zstd \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=build /opt/ingestd /opt/ingestd

# The data folder is the only place that is written to, with /tmp; the root may be read-only.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/ingestd --shell /usr/sbin/nologin ingestd \
    && install -d -o ingestd -g ingestd -m 750 /var/lib/ingestd /srv/aips /srv/transfers
ENV PATH=/opt/ingestd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/var/lib/ingestd \
    INGESTD_DATA_DIR=/var/lib/ingestd \
    INGESTD_HTTP_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/ingestd
VOLUME ["/var/lib/ingestd", "/srv/aips"]
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
# tini reaps what tools leave behind.
ENTRYPOINT ["tini", "--", "ingestd"]
CMD ["serve"]

ARG VERSION=dev
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="ingestd" \
      org.opencontainers.image.description="Digital preservation ingest as one asyncio service: from a preservation request to a stored, verified AIP." \
      org.opencontainers.image.licenses="AGPL-3.0-or-later" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
