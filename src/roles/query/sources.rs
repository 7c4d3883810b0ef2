//! What an operator configured as endpoints: flags, and files that are read again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use model::Kind;
use runtime::{FileWatch, World};

use crate::Error;
use crate::settings::Discovery;
use crate::targets::{Target, Wanted, read_sd_config, read_sd_file};

type Read = fn(&str) -> Result<BTreeSet<Wanted>, String>;

/// Flags and files together.
pub struct Sources {
    fixed: BTreeSet<Wanted>,
    files: Vec<(FileWatch, Read)>,
    /// What each file said last.
    said: BTreeMap<PathBuf, BTreeSet<Wanted>>,
}

impl Sources {
    /// Reads everything once; a file that is wrong at the start is an error.
    pub fn new(settings: &Discovery, world: &World) -> Result<Sources, Error> {
        let parse = |text: &String, strict| {
            let wrong = |why| Error::new(Kind::Invalid, format!("--endpoint {text:?}: {why}"));
            Target::parse(text).map(|target| Wanted { target, strict }).map_err(wrong)
        };
        let loose = settings.endpoints.iter().map(|text| parse(text, false));
        let strict = settings.strict_endpoints.iter().map(|text| parse(text, true));
        let fixed = loose.chain(strict).collect::<Result<_, _>>()?;
        let watch = |path: &PathBuf| FileWatch::new(world.disk.clone(), path);
        let mut files: Vec<(FileWatch, Read)> = Vec::new();
        files.extend(settings.sd_files.iter().map(|path| (watch(path), read_sd_file as Read)));
        files.extend(settings.sd_config_file.iter().map(|path| (watch(path), read_sd_config as Read)));
        let mut sources = Sources { fixed, files, said: BTreeMap::new() };
        match sources.look() {
            (_, Some(error)) => Err(Error::new(Kind::Invalid, error)),
            _ => Ok(sources),
        }
    }

    /// Everything that is configured now.
    pub fn wanted(&self) -> BTreeSet<Wanted> {
        self.fixed.iter().chain(self.said.values().flatten()).cloned().collect()
    }

    /// Looks at the files; the new whole if one changed. A file that is wrong keeps what it said before.
    pub fn changed(&mut self) -> Option<BTreeSet<Wanted>> {
        let (changed, error) = self.look();
        if let Some(error) = error {
            tracing::warn!(error, "cannot use an endpoints file; what it said before stands");
            metrics::counter!("thanos_file_sd_read_errors_total").increment(1);
        }
        changed.then(|| self.wanted())
    }

    fn look(&mut self) -> (bool, Option<String>) {
        let (mut changed, mut failure) = (false, None);
        for (watch, read) in &mut self.files {
            let path = watch.path().to_owned();
            let content = match watch.look() {
                Ok(None) => continue,
                Ok(Some(content)) => content,
                Err(error) => {
                    failure = Some(format!("cannot read {}: {error}", path.display()));
                    continue;
                }
            };
            let text = String::from_utf8(content).map_err(|_| "is not UTF-8 text".to_owned());
            match text.and_then(|text| read(&text)) {
                Ok(wanted) => {
                    self.said.insert(path, wanted);
                    changed = true;
                }
                Err(why) => failure = Some(format!("{}: {why}", path.display())),
            }
        }
        (changed, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_keeps_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sd.json");
        let world = World::real();
        let write = |text: &str| world.disk.write_atomic(&path, text.as_bytes()).unwrap();
        let settings =
            Discovery { endpoints: vec!["a:1".into()], sd_files: vec![path.clone()], ..Discovery::default() };
        assert!(Sources::new(&settings, &world).is_err());
        write(r#"[{"targets": ["b:1"]}]"#);
        let mut sources = Sources::new(&settings, &world).unwrap();
        assert_eq!(sources.wanted().len(), 2);
        assert_eq!(sources.changed(), None);
        write("[{");
        assert_eq!(sources.changed(), None);
        assert_eq!(sources.wanted().len(), 2);
        write(r#"[{"targets": ["b:1", "c:1"]}]"#);
        assert_eq!(sources.changed().unwrap().len(), 3);
    }
}
