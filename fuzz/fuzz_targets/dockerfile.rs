//! Any Dockerfile is read and planned to its end, with a plan or an error on lines that exist. What follows a line `---`
//! is a trigger of the base images.

#![no_main]

use std::collections::BTreeMap;

use ibid_core::dockerfile::{self, ErrorKind, PlanOptions};
use ibid_core::image::ContainerConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &[u8]| {
    let (source, trigger) = match source.windows(5).position(|window| window == b"\n---\n") {
        Some(at) => (&source[..at + 1], Some(&source[at + 5..])),
        None => (source, None),
    };
    let options = PlanOptions {
        build_args: BTreeMap::from([("A".to_owned(), "given".to_owned())]),
        target: None,
        architecture: "amd64".to_owned(),
        contexts: BTreeMap::new(),
    };
    let lines = source.split(|byte| *byte == b'\n').count();
    if let Err(error) = plan(source, trigger, &options) {
        assert!(1 <= error.lines.first && error.lines.first <= error.lines.last && error.lines.last <= lines);
        let message = error.to_string();
        assert!(!message.is_empty() && !message.contains('\n') && message.len() < 2000);
        assert!(error.hint().is_none_or(|hint| hint.len() < 2000));
    }
});

fn plan(source: &[u8], trigger: Option<&[u8]>, options: &PlanOptions) -> Result<(), dockerfile::Error> {
    let dockerfile = dockerfile::parse(source)?;
    let on_build = trigger.map(|text| String::from_utf8_lossy(text).into_owned()).into_iter().collect();
    let config = ContainerConfig { on_build, ..ContainerConfig::default() };
    let bases = dockerfile.bases(options)?;
    let mut images: BTreeMap<String, ContainerConfig> =
        bases.into_iter().map(|image| (image, config.clone())).collect();
    loop {
        match dockerfile::plan(&dockerfile, options, &images) {
            Err(dockerfile::Error { kind: ErrorKind::MissingBase { image }, .. }) => {
                assert!(images.insert(image, config.clone()).is_none(), "asked for twice");
            }
            Err(error) => return Err(error),
            Ok(plan) => {
                assert_eq!(plan.target, plan.stages.len() - 1);
                return Ok(());
            }
        }
    }
}
