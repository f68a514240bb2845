# innerloop on CPUs. Builds without a GPU: docker build -t innerloop .
FROM python:3.11-slim

WORKDIR /opt/innerloop
COPY requirements/runtime.txt requirements/runtime.txt
# Exactly what the lock file holds, checked by hashes, before the source, so that a change of the source is quick.
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

RUN useradd --uid 1000 --create-home innerloop && install -d -o innerloop /srv/innerloop /srv/innerloop/runs /srv/innerloop/data
USER innerloop
WORKDIR /srv/innerloop
ENV INNERLOOP_DATA=/srv/innerloop/data INNERLOOP_CACHE=/home/innerloop/.cache/innerloop
VOLUME /srv/innerloop/runs
ENTRYPOINT ["innerloop"]
CMD ["--help"]
