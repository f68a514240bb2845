# innerloop for CPUs. Needs no GPU to build: docker build -t innerloop .
FROM python:3.11-slim

WORKDIR /opt/innerloop
COPY requirements/runtime.txt requirements/runtime.txt
# The locked versions, with hashes, come before the source, so that a change of the source rebuilds quickly.
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
