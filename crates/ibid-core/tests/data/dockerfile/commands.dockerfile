FROM scratch
RUN ["a",]
RUN ['a']
RUN ["/bin/echo", "$HOME", "b\tc"]
RUN [ -f x ] && echo "y"
RUN   spaced    out   
RUN
RUN -- --flag
CMD only $x "kept" \$y
ENTRYPOINT exec top -b
CMD ["a", "b"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN a | b
CMD c | d
ENTRYPOINT ["e"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5m --timeout=3s --start-period=1.5s --start-interval=500ms --retries=4 CMD curl -f http://localhost/ || exit 1
HEALTHCHECK CMD ["check", "it"]
HEALTHCHECK none
MAINTAINER Some One <one@example.org>
USER user:group
RUN id
USER ${nobody:-65534}
RUN id
cmd []
