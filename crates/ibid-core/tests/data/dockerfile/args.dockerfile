ARG TAG=12 OTHER=${TAG}-slim
ARG NOVALUE
ARG GIVEN=default
FROM debian:${OTHER} AS first
ARG TAG
ARG NOVALUE
ARG GIVEN
ARG LOCAL="from $GIVEN" TARGETARCH
RUN a
ENV GIVEN=env
RUN b
ARG GIVEN=again
RUN c
ARG UNDECLARED
RUN d

FROM first
RUN inherits
ARG OTHER=own
RUN e $OTHER

FROM scratch
# Nothing of another stage is seen here.
ARG x=${GIVEN:-unset}${HTTP_PROXY}${TARGETPLATFORM}
ARG http_proxy
COPY --from=1 / /
RUN f
#: arg GIVEN=build
#: arg http_proxy=http://proxy:3128
#: arg HTTPS_PROXY=http://proxy:3128
#: arg BUILDKIT_INLINE_CACHE=1
#: arg NOBODY=knows
