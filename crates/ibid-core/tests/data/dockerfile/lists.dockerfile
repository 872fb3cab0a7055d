FROM base
ENV port=8080 more="53/udp 54"
EXPOSE 80 443/tcp ${port} $more 8000-8003/TCP 127.0.0.1:9000:90
VOLUME /data /more/$port
VOLUME ["/with space", "/b"]
WORKDIR /a
WORKDIR b/../c/
WORKDIR "quoted dir"
WORKDIR /${port:+p}/./q
WORKDIR ../..
WORKDIR /
RUN pwd
