FROM scratch
ENV a=b\ c d="e f" g='h $a'
ENV old style "with quotes"   and\ escapes
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
ENV empty= "quoted name"=x x$abc=y
ENV tail=$ dollar=\$x both="\$abc $abc" path=${abc}/sub multi=${unset:-${abc:+$def}}
ENV cont=a \
    # a comment
    more=b\
c

LABEL "com.example.vendor"="ACME Incorporated" short=l version='1.0' text="two \
lines"
LABEL legacy some   value
LABEL empty=""
RUN echo $abc "$def"
