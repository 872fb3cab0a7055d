FROM parent AS mid
RUN own
ONBUILD ENV x=$y
onbuild   COPY --from=tools /t /t
FROM tools:1 AS tools
RUN make
FROM mid AS child
RUN child
#: base parent {"OnBuild":["ARG FROM_TRIGGER=1","ADD . /src","RUN echo $FROM_TRIGGER \\\n && more","COPY <<EOF /f\nhi\nEOF"]}
#: arg FROM_TRIGGER=2
