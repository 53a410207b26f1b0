# syntax=docker/dockerfile:1
# Weir, all roles in one image: `docker run weir:0.1.0 start --project /project --role ingest`.
# DuckDB and LMDB come as prebuilt parts for glibc: a Debian base, not Alpine.

FROM node:22.21.1-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No scripts: nothing is compiled, and there is nothing yet that `prepare` could build.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:22.21.1-bookworm-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="Lambda-architecture analytics: fresh within a blink, exact to the last event" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production \
    WEIR_DATA_DIR=/var/lib/weir
WORKDIR /app
COPY --from=build /app/package.json /app/LICENSE ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY --from=build /app/examples ./examples
# Volumes and tmpfs take their owner from the folder in the image.
RUN install -d -o 1000 -g 1000 /var/lib/weir /var/lib/weir/run /var/lib/weir/rejects
# The user `node` of the base image, by number: orchestrators can then see that it is not root.
USER 1000:1000
VOLUME /var/lib/weir
EXPOSE 8080
# Alive, not ready: a restart mends a process, not what it waits for. Readiness is /readyz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.WEIR_SERVER_PORT || 8080) + '/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["--help"]
