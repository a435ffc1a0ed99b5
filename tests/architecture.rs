//! Who may depend on whom.
#[test]
fn placeholder() {}
