//! The variables that tell programs of proxies.

/// In both spellings that programs look for. A Dockerfile knows them as arguments without an `ARG`, as Docker's reference lists
/// them ("Predefined ARGs"): a `RUN` gets those that were given, but they are part neither of the plan nor of the image.
pub const VARIABLES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
