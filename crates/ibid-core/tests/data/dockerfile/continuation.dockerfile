# comment first
# escape=`
FROM base \
  AS name
RUN one \

  two \
# comment \
  three \  
	four
RUN joi\
ned   and\
 spaced
run lower && \
    last \
