"""Validates a Process Run Crate with the public validator, without network: the one document that it would fetch, RO-Crate's
JSON-LD context, comes from the installed package `rocrate`."""

import io
import pathlib
import sys
import urllib.request

import requests
import rocrate
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

CONTEXT_URL = "https://w3id.org/ro/crate/1.1/context"
CONTEXT = (pathlib.Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()


class Answer(io.BytesIO):
    url = CONTEXT_URL
    headers = {"Content-Type": "application/ld+json"}

    def info(self):
        return self.headers

    def geturl(self):
        return self.url


def urlopen(request, *_, **__):
    url = getattr(request, "full_url", request)
    if url != CONTEXT_URL:
        raise OSError(f"the crate needs {url}")
    return Answer(CONTEXT)


def send(_, request, **__):
    if request.url != CONTEXT_URL:
        raise requests.ConnectionError(f"the crate needs {request.url}")
    response = requests.Response()
    response.status_code = 200
    response.url = request.url
    response.request = request
    response.headers["Content-Type"] = "application/ld+json"
    response.raw = io.BytesIO(CONTEXT)
    return response


requests.adapters.HTTPAdapter.send = send
urllib.request.urlopen = urlopen
for name, module in list(sys.modules.items()):
    if name.startswith("rdflib") and hasattr(module, "urlopen"):
        module.urlopen = urlopen

result = services.validate(
    ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier="process-run-crate",
        requirement_severity=Severity.RECOMMENDED,
        no_cache=True,
    )
)
issues = result.get_issues()
for issue in issues:
    print(issue.severity.name, issue.check.identifier, issue.violatingEntity, issue.message)
print(f"{len(issues)} issues")
sys.exit(any(issue.severity == Severity.REQUIRED for issue in issues))
