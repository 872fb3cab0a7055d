FROM base
ENV name=value spaced="a b" EMPTY=
COPY a b/../c ./d/. dir/
COPY ["with space", "b\\ c", "dest dir/"]
COPY $name.txt ${spaced} "$name" /x
WORKDIR work
COPY *.py src/[a-z]? .
COPY . .
COPY x ../y
COPY $EMPTY /all
COPY --chown=user:group --chmod=755 x /
COPY --chown=$name --chmod=${unset:-0644} x y
COPY --chmod=u=rwX,go=rX x y
ADD --chown=1000 archive.tar.gz /opt/
ADD a b /c/
COPY --link=false x /
COPY [notjson] x
COPY /abs/../../up /z/..
