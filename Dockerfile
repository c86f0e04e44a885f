# The packages are built in one stage and only copied into the other, so that no compiler and no cache is shipped.
FROM python:3.13-slim AS packages
WORKDIR /app
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 LOG_FILE=-
RUN useradd --create-home --uid 10001 banana && install -d -o banana /app/.state /app/logs
WORKDIR /app
COPY --from=packages /venv /venv
COPY main.py config.py ./
COPY banana banana
COPY standin standin
COPY scripts/probe.py scripts/probe.py
USER banana
EXPOSE 8000
# No curl in the image: the probe asks /health with Python, at the PORT of the settings.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-m", "scripts.probe"]
# SIGTERM lets requests in flight finish; give it time: docker stop -t 130, or compose's stop_grace_period.
STOPSIGNAL SIGTERM
CMD ["python", "main.py"]
