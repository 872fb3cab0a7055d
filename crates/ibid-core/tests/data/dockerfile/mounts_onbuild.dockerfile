#: base needs-tools {"OnBuild":["RUN --mount=type=bind,from=tools,target=/t --mount=type=cache,target=/c --network=none make"]}
#: base a {}
FROM a AS tools
FROM b AS unused
FROM needs-tools AS inner
WORKDIR /in
ONBUILD RUN --mount=type=secret,id=k,target=k cat k
FROM inner AS triggered
# Stored for others, though no build here performs it.
ONBUILD RUN --device=x --mount=type=ssh later
ONBUILD RUN --security=insecure later
