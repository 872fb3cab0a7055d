#: context data=folder
#: context docker.io/library/base:latest=image other:1
#: context tools=folder
#: context replaced=image third
#: context nothing=folder
#: base other:1 {"Env": ["A=1"], "OnBuild": ["COPY --from=data x /y"]}
#: base third {"WorkingDir": "/w", "OnBuild": ["RUN not here"]}
ARG from=data
FROM $from AS whole
ENV a=b
FROM nowhere AS tools
RUN never
ONBUILD RUN never
FROM --platform=linux/arm64 nowhere AS Replaced
RUN never
COPY --from=tools a b
FROM base
COPY --from=data:latest . /data
COPY --from=tools /bin /tools
COPY --from=2 /w /w
COPY --from=base /etc /etc
COPY --from=whole a b
COPY --from=scratch / /empty
FROM tools
COPY --from=3 a b
