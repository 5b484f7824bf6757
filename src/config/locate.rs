//! Relative paths: each starts in the folder of the file it stands in.
//!
//! Not here: `${file:…}` (`interpolate`). One invariant: a path of a file that lies in the working
//! directory, and an absolute path, stay as they are written.

use std::path::{MAIN_SEPARATOR, Path};

use super::document::{Node, NodeEntry, NodeKind};
use super::text::InterpolatedString;

/// The folder of state, where the file names none.
const DATA_DIR: &str = "./data";

/// Puts the folder of its file before every relative path of a tree; `folders` are by the number of
/// a file. Without `data_dir`, it is a folder beside the first file.
pub(super) fn locate(root: &mut Node, folders: &[&Path]) {
    let at = |file: usize| folders.get(file).copied().unwrap_or(Path::new(""));
    if let Some(entries) = root.table_mut() {
        entries.entry("data_dir".to_owned()).or_insert_with(|| NodeEntry {
            key_span: 0..0,
            node: Node {
                file: 0,
                span: 0..0,
                kind: NodeKind::String(InterpolatedString::plain(DATA_DIR)),
            },
        });
        if let Some(entry) = entries.get_mut("data_dir") {
            path(&mut entry.node, &at);
        }
    }
    for source in tables(root, "sources") {
        for key in ["include", "exclude"] {
            for pattern in items(source, key) {
                glob(pattern, key, &at);
            }
        }
        for table in ["tls", "librdkafka_options"] {
            let entries = child(source, table).and_then(Node::table_mut);
            for (key, entry) in entries.into_iter().flatten() {
                if key.ends_with("_file") || key.ends_with(".location") {
                    path(&mut entry.node, &at);
                }
            }
        }
    }
}

fn child<'a>(table: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    table.table_mut()?.get_mut(key).map(|entry| &mut entry.node)
}

fn tables<'a>(root: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let entries = child(root, key).and_then(Node::table_mut);
    entries.into_iter().flatten().map(|(_, entry)| &mut entry.node)
}

fn items<'a>(table: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let items = match child(table, key).map(|node| &mut node.kind) {
        Some(NodeKind::Array(items)) => Some(items),
        _ => None,
    };
    items.into_iter().flatten()
}

fn path<'a>(node: &mut Node, at: &impl Fn(usize) -> &'a Path) {
    let folder = at(node.file);
    if let NodeKind::String(text) = &mut node.kind
        && !folder.as_os_str().is_empty()
        && !text.value.is_empty()
        && Path::new(&text.value).is_relative()
    {
        let behind = text.value.strip_prefix("./").unwrap_or(&text.value);
        *text = InterpolatedString::plain(folder.join(behind).to_string_lossy());
    }
}

/// A pattern, with the folder's own characters taken as they are. A pattern of `exclude` without a
/// separator is about names in any folder.
fn glob<'a>(node: &mut Node, key: &str, at: &impl Fn(usize) -> &'a Path) {
    let folder = at(node.file);
    let NodeKind::String(text) = &mut node.kind else {
        return;
    };
    let is_name = key == "exclude" && !text.value.contains(MAIN_SEPARATOR);
    if folder.as_os_str().is_empty() || Path::new(&text.value).is_absolute() || is_name {
        return;
    }
    let folder = ::glob::Pattern::escape(&folder.to_string_lossy());
    let behind = text.value.strip_prefix("./").unwrap_or(&text.value);
    *text = InterpolatedString::plain(format!("{folder}{MAIN_SEPARATOR}{behind}"));
}

#[cfg(test)]
mod tests {
    use super::super::document::SourceText;
    use super::super::{Environment, FixedEnvironment, load};
    use super::*;
    use crate::config::SourceConfig;

    fn pipeline(folder: &str, text: &str) -> crate::config::Pipeline {
        let sink = "[sinks.crm]\ntype = 'usercom'\ninputs = ['a']\napp = 'x'\napi_key = '${file:key}'\npreset = 'segment'\n";
        let main = SourceText { folder: folder.into(), ..SourceText::new("p.toml", text) };
        let other = SourceText { folder: "/etc/k".into(), ..SourceText::new("k.toml", sink) };
        let environment = FixedEnvironment {
            files: [("/etc/k/key".into(), "secret".to_owned())].into(),
            ..FixedEnvironment::default()
        };
        let environment: &dyn Environment = &environment;
        load(&[main, other], environment, &|_, _| Vec::new()).expect("a sound pipeline").pipeline
    }

    #[test]
    fn relative_path_is_resolved_from_its_pipeline_file() {
        // Each file's own folder counts, also for secrets; absolute paths and names stay.
        let text = "[sources.a]\ntype = 'file'\ninclude = ['./logs/*.log', '/var/*.log']\nexclude = ['*.gz', 'old/*']\n";
        let got = pipeline("/srv/[a]", text);
        assert_eq!(got.data_dir, Path::new("/srv/[a]/data"));
        let Some(SourceConfig::File(file)) = got.sources.get("a") else {
            panic!("a file source");
        };
        assert_eq!(file.include, ["/srv/[[]a[]]/logs/*.log", "/var/*.log"]);
        assert_eq!(file.exclude, ["*.gz", "/srv/[[]a[]]/old/*"]);
        let got = pipeline("", &format!("data_dir = './state'\n{text}"));
        assert_eq!(got.data_dir, Path::new("./state"));
        let got = pipeline(
            "conf",
            "data_dir = 'state'\n[sources.a]\ntype = 'http'\ntls = { enabled = true, crt_file = 'c.pem', key_file = '/k.pem' }\n",
        );
        assert_eq!(got.data_dir, Path::new("conf/state"));
        let Some(SourceConfig::Http(http)) = got.sources.get("a") else {
            panic!("an http source");
        };
        assert_eq!(http.tls.crt_file.as_deref(), Some(Path::new("conf/c.pem")));
        assert_eq!(http.tls.key_file.as_deref(), Some(Path::new("/k.pem")));
    }
}
