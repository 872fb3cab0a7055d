//! `devcontainer.json` (containers.dev/implementors/json_reference), by which editors open the project in its image.

use ibid_core::gpus::{GpuDevice, GpuRequest};
use serde_json::{Map, Value, json};

use super::{Error, File, Recipe};

const TOOL: &str = "an editor";

impl Recipe {
    /// The file, for the folder that this recipe is for.
    pub fn devcontainer(&self) -> Result<File, Error> {
        let Some(folder) = &self.code_folder else { return Err(Error::UnknownCodeFolder { tool: TOOL }) };
        for path in self.data.iter().chain([folder]) {
            if path.contains(',') {
                return Err(Error::Path { path: path.clone(), character: ',', tool: TOOL });
            }
        }
        let here = |path: &str| match path {
            "" | "." => self.to_project.clone(),
            path => format!("{}/{path}", self.to_project),
        };
        let mut build = json!({"dockerfile": here(&self.dockerfile), "context": here(&self.context)});
        if !self.args.is_empty() {
            build["args"] = json!(self.args);
        }
        let mut document = Map::new();
        let mut set = |key: &str, value: Value| document.insert(key.to_owned(), value);
        set("name", json!(self.name));
        set("build", build);
        set("workspaceMount", json!(format!("type=bind,source=${{localWorkspaceFolder}},target={folder}")));
        set("workspaceFolder", json!(folder));
        if !self.data.is_empty() {
            let mount = |data: &String| {
                format!("type=bind,source=${{localWorkspaceFolder}}/{data},target={folder}/{data},readonly")
            };
            set("mounts", json!(self.data.iter().map(mount).collect::<Vec<_>>()));
        }
        if !self.env.is_empty() {
            set("containerEnv", json!(self.env));
        }
        if let Some(user) = &self.user {
            set("remoteUser", json!(user));
        }
        // The editor gives the image's user the ids of the person.
        set("updateRemoteUserUID", json!(true));
        set("overrideCommand", json!(true));
        let mut arguments = vec!["--network=host".to_owned()];
        match &self.gpus {
            None | Some(GpuRequest::None) => {}
            Some(GpuRequest::All) => arguments.push("--gpus=all".to_owned()),
            Some(GpuRequest::Count(count)) => arguments.push(format!("--gpus={count}")),
            Some(GpuRequest::Devices(devices)) => {
                for device in devices {
                    arguments.push(match device {
                        GpuDevice::Own(name) => format!("--gpus=\"device={name}\""),
                        GpuDevice::Qualified(name) => format!("--device={name}"),
                    });
                }
            }
        }
        set("runArgs", json!(arguments));
        let text = serde_json::to_string_pretty(&Value::Object(document)).expect("plain data") + "\n";
        Ok(File { name: "devcontainer.json".to_owned(), text, is_executable: false })
    }
}
