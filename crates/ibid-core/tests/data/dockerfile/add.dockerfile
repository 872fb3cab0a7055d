FROM base
ARG HOST=user:secret@example.org SUM=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
ADD https://$HOST/a/b%20c.tar.gz?token=x#y /in/
ADD --checksum=$SUM --chmod=755 --chown=1:2 --unpack https://example.org/x.tar /x
ADD --unpack=false a.tar http://example.org b.tar /in/
COPY ftp://a/path /in/
ADD --link --exclude=*.o https://example.org/y /y
ADD https://$HOST/x.git#main:docs git@example.org:y /git/
ADD --checksum=0123abc --keep-git-dir --chown=1:2 https://example.org/x.git?tag=v1&submodules=0 /git/
