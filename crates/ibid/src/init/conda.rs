//! conda's `environment.yml`, as far as `pip` installs the same.

use serde_json::Value;

use super::Error;
use super::python::Wanted;

/// conda's names of packages that PyPI has under the same name.
const SAME_NAMES: [&str; 104] = [
    "absl-py",
    "accelerate",
    "altair",
    "arviz",
    "astropy",
    "attrs",
    "beautifulsoup4",
    "biopython",
    "black",
    "bokeh",
    "catboost",
    "click",
    "cmake",
    "configargparse",
    "cython",
    "dask",
    "datasets",
    "dill",
    "einops",
    "filelock",
    "fire",
    "flake8",
    "flask",
    "flax",
    "fsspec",
    "gensim",
    "geopandas",
    "gitpython",
    "gymnasium",
    "h5py",
    "httpx",
    "hydra-core",
    "imageio",
    "ipykernel",
    "ipython",
    "ipywidgets",
    "isort",
    "jax",
    "jaxlib",
    "jinja2",
    "joblib",
    "jupyter",
    "jupyterlab",
    "keras",
    "lightgbm",
    "lightning",
    "lxml",
    "matplotlib",
    "mlflow",
    "mypy",
    "netcdf4",
    "networkx",
    "nibabel",
    "ninja",
    "nltk",
    "notebook",
    "numba",
    "numexpr",
    "numpy",
    "omegaconf",
    "openpyxl",
    "optax",
    "optuna",
    "packaging",
    "pandas",
    "pathos",
    "pillow",
    "plotly",
    "polars",
    "protobuf",
    "psutil",
    "pyarrow",
    "pybind11",
    "pydantic",
    "pytest",
    "python-dateutil",
    "pytorch-lightning",
    "pytz",
    "pyyaml",
    "regex",
    "requests",
    "rich",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "seaborn",
    "sentencepiece",
    "setuptools",
    "shap",
    "six",
    "spacy",
    "statsmodels",
    "sympy",
    "tabulate",
    "tensorboard",
    "tensorflow",
    "timm",
    "tokenizers",
    "torchmetrics",
    "tqdm",
    "transformers",
    "typer",
    "wandb",
    "xgboost",
];
/// Those that have another there.
const OTHER_NAMES: [(&str, &str); 14] = [
    ("dask-core", "dask"),
    ("faiss-cpu", "faiss-cpu"),
    ("huggingface_hub", "huggingface-hub"),
    ("matplotlib-base", "matplotlib"),
    ("opencv", "opencv-python-headless"),
    ("py-opencv", "opencv-python-headless"),
    ("pytables", "tables"),
    ("pytorch", "torch"),
    ("pytorch-cpu", "torch"),
    ("scikit-learn-intelex", "scikit-learn-intelex"),
    ("seaborn-base", "seaborn"),
    ("torchaudio", "torchaudio"),
    ("torchvision", "torchvision"),
    ("tensorflow-gpu", "tensorflow"),
];
/// What PyPI's packages bring with them, or what `pip` itself is.
const NOT_NEEDED: [&str; 9] =
    ["cpuonly", "cudatoolkit", "cudnn", "mkl", "nomkl", "pip", "pytorch-cuda", "pytorch-mutex", "wheel"];

/// An environment as `pip` takes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Environment {
    /// Lines of a `requirements.txt`.
    pub requirements: Vec<String>,
    pub python: Option<Wanted>,
    /// What was left out, since PyPI's packages bring it.
    pub left_out: Vec<String>,
}

/// Reads `environment.yml`, called `file`.
pub fn read(file: &'static str, path: &std::path::Path, text: &str) -> Result<Environment, Error> {
    let wrong = |what: String| Error::Syntax { path: path.to_owned(), what };
    let document = ibid_core::yaml::parse(text).map_err(|error| wrong(error.to_string()))?;
    let dependencies = match document.get("dependencies") {
        None | Some(Value::Null) => &Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong("`dependencies` is no list".to_owned())),
    };
    let mut environment = Environment { requirements: Vec::new(), python: None, left_out: Vec::new() };
    let mut unknown = Vec::new();
    for item in dependencies {
        match item {
            Value::String(text) => match translate(text) {
                Some(Translated::Requirement(line)) => environment.requirements.push(line),
                Some(Translated::Python(specifier)) => {
                    environment.python =
                        specifier.map(|specifier| Wanted { file: file.to_owned(), specifier });
                }
                Some(Translated::NotNeeded(name)) => environment.left_out.push(name),
                None => unknown.push(text.clone()),
            },
            Value::Object(table) if table.len() == 1 && table.contains_key("pip") => {
                let lines = table["pip"].as_array().ok_or_else(|| wrong("`pip` is no list".to_owned()))?;
                for line in lines {
                    let line = line.as_str().ok_or_else(|| wrong("`pip` is no list of texts".to_owned()))?;
                    environment.requirements.push(line.to_owned());
                }
            }
            other => return Err(wrong(format!("in `dependencies`: `{other}` is no package"))),
        }
    }
    if !unknown.is_empty() {
        return Err(Error::NotInstallable {
            file,
            what: unknown,
            hint: "conda's own packages are not installed. Where PyPI has one, write it below `- pip:`; where Debian has one, take it out and add it to `apt-get install` in the Dockerfile that is written then".to_owned(),
        });
    }
    Ok(environment)
}

enum Translated {
    Requirement(String),
    /// With its specifier, when it has one.
    Python(Option<String>),
    NotNeeded(String),
}

/// One package as conda writes it: `channel::name version build`, `name=version=build`, `name>=1,<2`.
fn translate(text: &str) -> Option<Translated> {
    let text = text.rsplit("::").next().unwrap_or(text).trim();
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let name = name.to_ascii_lowercase();
    let specifier = version(rest.trim())?;
    if name == "python" {
        return Some(Translated::Python((!specifier.is_empty()).then_some(specifier)));
    }
    if NOT_NEEDED.contains(&name.as_str()) {
        return Some(Translated::NotNeeded(name));
    }
    let other = OTHER_NAMES.iter().find(|(conda, _)| *conda == name).map(|(_, pip)| *pip);
    let pip = other.or_else(|| SAME_NAMES.contains(&name.as_str()).then_some(name.as_str()))?;
    Some(Translated::Requirement(format!("{pip}{specifier}")))
}

/// conda's version, as `pip` writes it: `=1.2` takes all of 1.2, `==1.2` only that, a build is left out.
fn version(text: &str) -> Option<String> {
    let is_version = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '*' | '+' | '!' | '_'))
    };
    if text.is_empty() || text == "*" {
        return Some(String::new());
    }
    if text.starts_with(['<', '>', '!', '~']) || text.starts_with("==") {
        let text: String = text.split_whitespace().collect();
        // Alternatives (`|`) and builds have no word in pip's language.
        let is_known = text.split(',').all(|part| {
            let number = part.trim_start_matches(['<', '>', '!', '~', '=']);
            part.len() > number.len() && is_version(number)
        });
        return is_known.then_some(text);
    }
    // `=1.2`, `=1.2=build`, `1.2 build`.
    let rest = text.strip_prefix('=').unwrap_or(text);
    let (number, build) = match rest.split_once(['=', ' ']) {
        Some((number, build)) => (number, Some(build)),
        None => (rest, None),
    };
    if !is_version(number) {
        return None;
    }
    let number = number.trim_end_matches(".*").trim_end_matches('*');
    Some(if build.is_some() { format!("=={number}") } else { format!("=={number}.*") })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_pip_has_is_translated() {
        let text = "name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.10\n  - pip\n  - numpy=1.26\n  - conda-forge::scipy=1.11.4=py310_0\n\
            \x20 - pandas >=2, <3\n  - pytorch==2.1.0\n  - pyyaml\n  - cudatoolkit=11.8\n  - tqdm 4.66.*\n  - pip:\n    - einops==0.7\n    - -r more.txt\n";
        let environment = read("environment.yml", Path::new("environment.yml"), text).expect("translated");
        assert_eq!(
            environment.requirements,
            [
                "numpy==1.26.*",
                "scipy==1.11.4",
                "pandas>=2,<3",
                "torch==2.1.0",
                "pyyaml",
                "tqdm==4.66.*",
                "einops==0.7",
                "-r more.txt"
            ]
        );
        assert_eq!(environment.python.expect("asked for").specifier, "==3.10.*");
        assert_eq!(environment.left_out, ["pip", "cudatoolkit"]);
    }

    #[test]
    fn what_pip_does_not_have_is_refused() {
        let check = |text: &str, expected: &str| {
            let error = read("environment.yml", Path::new("environment.yml"), text).expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(
            "dependencies: [numpy, gcc_linux-64, r-base=4.1]",
            "environment.yml asks for what `ibid init` cannot install: gcc_linux-64, r-base=4.1",
        );
        check("dependencies: [numpy 1.2|1.3]", "numpy 1.2|1.3");
        check("dependencies: numpy", "`dependencies` is no list");
        check("dependencies: [{conda: []}]", "is no package");
        check("dependencies: [", "environment.yml: line ");
    }
}
