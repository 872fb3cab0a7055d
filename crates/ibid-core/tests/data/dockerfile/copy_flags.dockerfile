FROM base AS tools
FROM base
ENV what=*.log
COPY --exclude=$what --exclude=**/node_modules --exclude= --exclude=!keep.log src/ /src/
ADD --exclude=#x --unpack=false a.tar /a/
ADD --unpack a.tar /b/
COPY --parents a.txt ./src/**/*.py /in/
COPY --parents x/./y/../z/*.txt /abs/./b /./c d/./ !odd /in/
COPY --parents=false --link=TRUE --chown=0:root --from=tools /x/y /z
COPY --link --chown=12 a /b
COPY --link --chown=user --chmod=755 a /b
ADD --link=false --chown=user a /b
COPY --link --parents --exclude=*.o <<EOF lib/*.o lib/ /l/
text
EOF
