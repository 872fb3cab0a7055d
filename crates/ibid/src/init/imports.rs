//! Which packages a script imports, where nothing lists them: those that are widely known.

/// Modules and the packages of PyPI that have them.
const MODULES: [(&str, &str); 57] = [
    ("PIL", "pillow"),
    ("accelerate", "accelerate"),
    ("bs4", "beautifulsoup4"),
    ("click", "click"),
    ("cv2", "opencv-python-headless"),
    ("dask", "dask"),
    ("datasets", "datasets"),
    ("dateutil", "python-dateutil"),
    ("einops", "einops"),
    ("fire", "fire"),
    ("flax", "flax"),
    ("gensim", "gensim"),
    ("gymnasium", "gymnasium"),
    ("h5py", "h5py"),
    ("hydra", "hydra-core"),
    ("imageio", "imageio"),
    ("jax", "jax"),
    ("joblib", "joblib"),
    ("keras", "keras"),
    ("lightgbm", "lightgbm"),
    ("lightning", "lightning"),
    ("lxml", "lxml"),
    ("matplotlib", "matplotlib"),
    ("networkx", "networkx"),
    ("nibabel", "nibabel"),
    ("nltk", "nltk"),
    ("numba", "numba"),
    ("numpy", "numpy"),
    ("omegaconf", "omegaconf"),
    ("optax", "optax"),
    ("optuna", "optuna"),
    ("pandas", "pandas"),
    ("plotly", "plotly"),
    ("polars", "polars"),
    ("psutil", "psutil"),
    ("pyarrow", "pyarrow"),
    ("pydantic", "pydantic"),
    ("pytorch_lightning", "pytorch-lightning"),
    ("requests", "requests"),
    ("rich", "rich"),
    ("scipy", "scipy"),
    ("seaborn", "seaborn"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("spacy", "spacy"),
    ("statsmodels", "statsmodels"),
    ("sympy", "sympy"),
    ("tensorboard", "tensorboard"),
    ("tensorflow", "tensorflow"),
    ("timm", "timm"),
    ("torch", "torch"),
    ("torchaudio", "torchaudio"),
    ("torchvision", "torchvision"),
    ("tqdm", "tqdm"),
    ("transformers", "transformers"),
    ("typer", "typer"),
    ("wandb", "wandb"),
];

/// Modules that a text imports, each once.
pub(super) fn modules(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let names = match (line.strip_prefix("import "), line.strip_prefix("from ")) {
            (Some(names), _) => names,
            (None, Some(names)) => names.split(" import").next().unwrap_or(names),
            (None, None) => continue,
        };
        for name in names.split(',') {
            let name = name.trim_start().split([' ', '.', '#', ';']).next().unwrap_or_default();
            if !name.is_empty() && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// The packages for the modules that a script imports.
pub(super) fn packages(text: &str) -> Vec<String> {
    let known = modules(text).into_iter().filter_map(|module| {
        let at = MODULES.binary_search_by_key(&module, |(module, _)| module).ok()?;
        Some(MODULES[at].1.to_owned())
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_modules_have_packages() {
        assert!(MODULES.is_sorted(), "they are searched");
        let text = "import os, numpy as np\nfrom sklearn.svm import SVC\n    import torch.nn as nn\nimport torch\nfrom . import x\nimportant = 1\n";
        assert_eq!(packages(text), ["numpy", "scikit-learn", "torch"]);
        assert_eq!(modules("import a.b as c, d; x()\n"), ["a", "d"]);
    }
}
