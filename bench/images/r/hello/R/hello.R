hello <- function() "hello"
