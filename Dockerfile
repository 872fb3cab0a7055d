# syntax=docker/dockerfile:1.7
FROM debian:bookworm-slim AS tools
RUN echo tool > /tool && chmod 700 /tool
FROM debian:bookworm-slim
ARG USER_ID=1000
RUN useradd -u $USER_ID u && mkdir /code
COPY --link --from=tools --chmod=a+x /tool /usr/bin/tool
COPY --parents src/*/x.py /p/
COPY --exclude=*.md --chmod=u=rwX,go=rX src /code/src
COPY --from=extra f /extra-f
ADD http://127.0.0.1:8099/file.tar.gz /dl/
ADD --unpack=true http://127.0.0.1:8099/file.tar.gz /un/
ADD http://127.0.0.1:8099/repo.git#main /repo
RUN <<EOF
set -e
find /p /code /dl /un /repo /extra-f /usr/bin/tool -ls
EOF
USER u
