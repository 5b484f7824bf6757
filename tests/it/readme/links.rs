//! Links of the pages.

use regex::Regex;

use super::{Page, ROOT, pages};

/// The anchor that forges make of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// The anchors of all headings of a text; lines of fenced blocks are none.
fn anchors(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            found.push(anchor(line));
        }
    }
    found
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    // Each relative link of a page names a file of the repository, and a heading of that file.
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages() {
        let folder = page.path.parent().unwrap();
        for found in link.captures_iter(&page.text) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            seen += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            let headings = || std::fs::read_to_string(&path).map(|text| anchors(&text));
            let good = path.exists()
                && (heading.is_empty()
                    || headings().is_ok_and(|known| known.iter().any(|name| name == heading)));
            if !good {
                wrong.push(format!("{}: {target}", page.path.display()));
            }
        }
    }
    assert!(seen > 40, "{seen} links");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readme_links_every_page() {
    // A reader of the README finds each page of `docs/`.
    let readme = Page::read("README.md");
    for page in pages() {
        let name = page.path.strip_prefix(ROOT).unwrap();
        if name.starts_with("docs") {
            let link = format!("]({})", name.display());
            assert!(readme.text.contains(&link), "README.md has no link to {}", name.display());
        }
    }
}
