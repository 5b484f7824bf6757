//! The code of the gRPC service is what its definition says.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn generated_code_is_current() {
    // What is generated from `schema/proto` stands in the source tree, letter for letter. Where it
    // does not, this writes it and fails once.
    let root = Path::new(ROOT);
    let definitions = root.join("schema/proto");
    let files = protox::compile(["vector.proto"], [&definitions]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let kept = root.join("src/source/vector/generated");
    let mut stale = Vec::new();
    for name in ["event.rs", "vector.rs"] {
        let fresh = fs::read_to_string(out.path().join(name)).unwrap();
        let fresh = format!("// Generated from schema/proto; a test keeps it current.\n{fresh}");
        if fs::read_to_string(kept.join(name)).ok().as_deref() != Some(&fresh) {
            fs::create_dir_all(&kept).unwrap();
            fs::write(kept.join(name), fresh).unwrap();
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "generated anew, look at it and commit it: {stale:?}");
}
