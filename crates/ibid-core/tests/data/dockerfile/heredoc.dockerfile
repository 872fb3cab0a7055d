FROM base
ENV name=value
RUN <<EOF
echo $name
  # not a comment
cat <<X
EOF
RUN <<-"SCRIPT"
	#!/usr/bin/env python3
	print("$name")
	SCRIPT
RUN cat <<A > /a && cat <<-B > /b
one $name
A
	two
	B
COPY <<plain <<'raw' <<-"tabs" other /files/
$name "quoted" 'single' \$name \\ \n ${unset:-d}
plain
$name \$x
raw
	indented $name
	tabs
ADD --chmod=600 <<EOF /etc/one
EOF
RUN python3 <<EOF arg
print(1)
EOF
RUN echo $((1<<2)) "<<NOT"
RUN ["echo", "<<EOF"]
ONBUILD RUN <<EOF
echo later
EOF
ONBUILD COPY <<A <<B /
a
A
b
B
SHELL ["/bin/bash", "-e", "-c"]
RUN <<EOF

echo bash
EOF
