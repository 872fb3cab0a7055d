FROM golang:1 AS Build
RUN make
FROM unneeded AS never
RUN ./never --platform
FROM --platform=windows/amd64 needless
FROM build as test
COPY --from=busybox:1 /bin/ls /ls
COPY --from=0 /out /
FROM scratch
COPY --from=BUILD /out/app /app
COPY --from=test --chown=1:2 --chmod=0755 a b /x/
FROM late AS after
#: target test
