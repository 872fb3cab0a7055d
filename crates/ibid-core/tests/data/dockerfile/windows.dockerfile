# syntax=docker/dockerfile:1
# escape=`
# check=skip=all
FROM base
RUN dir c:\ `
  more `

  # comment
  end
ENV a=b` c d=`$x e=\
COPY a b\
RUN <<EOF
line
EOF
WORKDIR c:\x
RUN tail `