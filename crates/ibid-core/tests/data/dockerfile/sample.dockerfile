FROM debian:bookworm-slim

# Python and NumPy come with the distribution.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-numpy \
    # the lists are of no use later
    && rm -rf /var/lib/apt/lists/*

ARG USER_ID=1000
ARG GROUP_ID=1000
RUN groupadd --gid "$GROUP_ID" user && \
    useradd --uid "$USER_ID" --gid "$GROUP_ID" --create-home user
USER user
WORKDIR /code
COPY . .
ENTRYPOINT ["python3", "mnist.py"]
#: arg USER_ID=1234
#: arg USRE_ID=1
#: base debian:bookworm-slim {"Env":["PATH=/usr/bin:/bin"],"Cmd":["bash"]}
