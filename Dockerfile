# The packages are built in one stage and only copied into the other, so that no compiler and no cache is shipped.
FROM python:3.13-slim AS packages
WORKDIR /app
# With what RESULTS_URL=s3://… and STORE_URL=redis://… need.
COPY requirements-all.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements-all.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LOG_FILE=-
# glibc keeps the pages of images for the next ones, and gives them back when they are many (docs/operate.md).
ENV MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=67108864
RUN useradd --create-home --uid 10001 banana && install -d -o banana -m 700 /app/.state /app/logs /app/results
WORKDIR /app
COPY --from=packages /venv /venv
COPY LICENSE main.py config.py ./
COPY banana banana
COPY standin standin
COPY scripts/probe.py scripts/probe.py
USER banana
# The counters of the rate limit; a volume also lets the container run with --read-only.
VOLUME /app/.state
EXPOSE 8000
# Inside, it is always port 8000 on all interfaces, whatever PORT and HOST in .env say: which port of the machine that is,
# -p and docker-compose.yml decide.
ENTRYPOINT ["env", "HOST=0.0.0.0", "PORT=8000"]
# No curl in the image: the probe asks /health with Python.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["env", "HOST=0.0.0.0", "PORT=8000", "python", "-m", "scripts.probe"]
# SIGTERM lets requests and tasks in flight finish; give it time: docker stop -t 610, or compose's stop_grace_period.
STOPSIGNAL SIGTERM
CMD ["python", "main.py"]
# Where the code is and which commit it is of; whoever publishes the image says so:
# docker build --build-arg SOURCE_URL=https://… --build-arg REVISION="$(git rev-parse HEAD)" -t banana-service .
ARG SOURCE_URL=""
ARG REVISION=""
LABEL org.opencontainers.image.title="BananaService" \
      org.opencontainers.image.description="A relay between your programs and Google's Gemini image models" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="2.1.0" \
      org.opencontainers.image.source="$SOURCE_URL" \
      org.opencontainers.image.documentation="${SOURCE_URL:+$SOURCE_URL#readme}" \
      org.opencontainers.image.revision="$REVISION"
