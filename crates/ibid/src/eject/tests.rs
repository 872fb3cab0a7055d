use std::process::{Command, Stdio};

use super::*;

/// A project with everything that needs quoting.
const DOCKERFILE: &str =
    "FROM scratch\nARG USER_ID=1000\nARG GROUP_ID=1000\nARG GREETING\nWORKDIR \"/the code\"\nCOPY . .\n";

fn nasty() -> Project {
    Project {
        root: "/home/ann/My 'Project'".into(),
        name: "lab/my-project".to_owned(),
        dockerfile: "/home/ann/My 'Project'/docker files/Dockerfile".into(),
        context: "/home/ann/My 'Project'/src".into(),
        build_args: BTreeMap::from([("GREETING".to_owned(), "it's $HOME \"x\"".to_owned())]),
        registry: None,
        keep: Vec::new(),
        code_mount: None,
        outputs: vec!["out put".to_owned(), "plots".to_owned()],
        data_digest: false,
        data: vec!["da$ta".to_owned()],
        env: BTreeMap::from([("WORDS".to_owned(), "a, 'b' $c".to_owned())]),
        gpus: Some(GpuRequest::All),
        engine: None,
        builder: None,
        bases: BTreeMap::new(),
        replay: Default::default(),
    }
}

fn plain() -> Project {
    Project {
        root: "/p".into(),
        name: "p".to_owned(),
        dockerfile: "/p/Dockerfile".into(),
        context: "/p".into(),
        build_args: BTreeMap::new(),
        outputs: Vec::new(),
        data: Vec::new(),
        env: BTreeMap::new(),
        gpus: None,
        engine: None,
        builder: None,
        ..nasty()
    }
}

fn recipe(project: &Project, dockerfile: &str, folder: &str) -> Result<Recipe, Error> {
    let dockerfile = dockerfile::parse(dockerfile.as_bytes()).expect("a sound Dockerfile");
    Recipe::of(project, &dockerfile, Path::new(folder))
}

const TOOLS: [Tool; 4] = [Tool::Docker, Tool::Podman, Tool::Apptainer, Tool::Compose];

/// `IBID_UPDATE_GOLDEN=1 cargo test -p ibid eject` writes the files anew.
#[test]
fn files_are_as_they_were() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eject");
    let recipe = recipe(&nasty(), DOCKERFILE, "/home/ann/My 'Project'/to run").expect("a recipe");
    for file in TOOLS.iter().flat_map(|tool| recipe.files(*tool).expect("files")) {
        let path = golden.join(&file.name);
        if std::env::var_os("IBID_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&golden).expect("a folder");
            std::fs::write(&path, &file.text).expect("a writable golden file");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(expected == file.text, "{} differs; it is now\n{}", path.display(), file.text);
        assert_eq!(file.is_executable, file.name.ends_with(".sh"));
    }
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let program = Command::new("shellcheck").arg("--version").output();
    if let Err(error) = program {
        let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
        assert_ne!(required, "all", "needs shellcheck: {error}");
        eprintln!("skipped: needs shellcheck: {error}");
        return;
    }
    let gpus = ["2", "device=0,1", "lab.org/gpu=a,lab.org/gpu=b"];
    let choices = gpus.map(|gpus| Project { gpus: Some(gpus.parse().expect("a request")), ..nasty() });
    let of_base = "FROM debian:bookworm-slim\nCOPY . .\n";
    let mut recipes: Vec<Recipe> =
        choices.iter().map(|project| recipe(project, of_base, "/elsewhere").expect("a recipe")).collect();
    recipes.push(recipe(&nasty(), DOCKERFILE, "/home/ann/My 'Project'/to run").expect("a recipe"));
    recipes.push(recipe(&plain(), DOCKERFILE, "/p").expect("a recipe"));
    let mut seen = 0;
    for files in recipes.iter().flat_map(|recipe| TOOLS.map(|tool| recipe.files(tool))) {
        for file in files.into_iter().flatten().filter(|file| file.is_executable) {
            let mut checking = Command::new("shellcheck")
                .arg("-")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("shellcheck starts");
            let mut input = checking.stdin.take().expect("a pipe");
            std::io::Write::write_all(&mut input, file.text.as_bytes()).expect("shellcheck reads");
            drop(input);
            let output = checking.wait_with_output().expect("shellcheck ends");
            assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), file.text);
            seen += 1;
        }
    }
    assert!(seen >= 36, "{seen} scripts");
}

#[test]
fn what_a_tool_cannot_do_is_refused() {
    let check = |project: Project, dockerfile: &str, tool: Tool, expected: &str| {
        let error =
            recipe(&project, dockerfile, "/p").and_then(|recipe| recipe.files(tool)).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    let scratch = "FROM scratch\nWORKDIR /code\n";
    let of_base = "FROM debian:bookworm-slim\nWORKDIR sub\n";
    check(
        plain(),
        "FROM scratch\nWORKDIR /\n",
        Tool::Docker,
        "the image has no folder for the code: its WORKDIR is `/`",
    );
    let unknown = "the folder of the code is that of the base image, which Compose cannot be asked for";
    check(plain(), of_base, Tool::Compose, unknown);
    let unknown = "the folder of the code is that of the base image, which Apptainer cannot be asked for";
    check(plain(), of_base, Tool::Apptainer, unknown);
    let colon = || Project { outputs: vec!["a:b".to_owned()], ..plain() };
    check(colon(), scratch, Tool::Podman, "`a:b` holds a `:`, which Podman takes for the end of a path");
    check(
        colon(),
        scratch,
        Tool::Apptainer,
        "`a:b` holds a `:`, which Apptainer takes for the end of a path",
    );
    let choice = Project { gpus: Some(GpuRequest::Count(1)), ..plain() };
    check(choice, scratch, Tool::Apptainer, "a choice of GPUs cannot be asked of Apptainer");
    let mixture = Project { gpus: Some("device=0,lab.org/gpu=a".parse().expect("a request")), ..plain() };
    let expected = "a mixture of a driver's devices and those of CDI files cannot be asked of Compose";
    check(mixture, scratch, Tool::Compose, expected);
}

#[test]
fn ways_between_folders() {
    let check = |folder: &str, path: &str, expected: &str| {
        assert_eq!(between(Path::new(folder), Path::new(path)), expected, "{folder} {path}");
    };
    check("/a/b", "/a/b", "");
    check("/a/b", "/a/b/c d", "c d");
    check("/a/b/c", "/a/d", "../../d");
    check("/", "/a", "a");
}
