# The last released image of the community edition, with a data folder that its unprivileged user may write.
FROM minio/minio:RELEASE.2025-09-07T16-13-09Z
COPY --chown=1000:1000 data /data
USER 1000:1000
