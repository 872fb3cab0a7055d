# syntax=docker/dockerfile:1
#: arg BUILDKIT_CACHE_MOUNT_NS=project
#: base golang:1.22 {"Env":["PATH=/go/bin"]}
ARG VERSION=1
FROM base AS unused
FROM base AS tools
RUN make tools
FROM base AS other
FROM scratch
FROM base AS final
ARG VERSION
ENV HOME_OF=/home/ann
WORKDIR /src
RUN --mount=type=bind,target=. make
RUN --mount=target=in,source=data/$VERSION,rw --mount=type=bind,from=tools,source=/out,target=/tools,readonly \
    --mount=from=3,target=/nothing cp in/* /tools
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked,id=pip-$VERSION pip install x
RUN --mount=type=cache,target=${HOME_OF}/.cache,uid=1000,gid=1000,mode=0700 \
    --mount=type=cache,target=mod,from=golang:1.22,source=/go/pkg/mod,readonly go build
RUN --mount=target=/twice,from=unused,from=tools true
RUN --mount=type=tmpfs,target=/tmp,size=64m --network=none ["make", "test"]
RUN --mount=type=secret,id=token --mount=type=secret,id=key,env=KEY,target=/k,required=true,mode=0440,gid=5 --network=host fetch
RUN --mount=type=ssh --mount=type=ssh,id=work,required --security=sandbox --network=default git clone x
RUN --mount=type=bind,target=/data <<EOF
cp /data/a /b
EOF
