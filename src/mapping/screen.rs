//! Screen events of mobile apps. A screen has no URL, so its name is used as the path.

use std::borrow::Cow;

use super::json::{self, JsonKind};
use crate::call::{Call, Json, Object};

/// Sets the path `/<name>` on a screen with a name or a category and without a URL.
pub(super) fn name_as_path(call: &mut Call<'_>) {
    let has = |object: &Object<'_>, names: [&str; 2]| {
        let mut texts = object.get_all(names).into_iter().flatten().filter_map(json::text);
        texts.any(|text| !text.trim().is_empty())
    };
    let page = call.context.get("page").filter(|page| JsonKind::of(page) == JsonKind::Object);
    if has(&call.fields, ["url", "path"])
        || has(&call.context, ["url", "url"])
        || page.is_some_and(|page| has(&Object::Raw(page), ["url", "path"]))
    {
        return;
    }
    let blank = |name: &&str| name.trim().is_empty();
    let name = call.name.as_deref().filter(|name| !blank(name));
    let Some(name) = name.or(call.category.as_deref().filter(|name| !blank(name))) else {
        return;
    };
    // These characters would end the path.
    let name = name.trim().trim_start_matches('/').replace('?', "%3F").replace('#', "%23");
    let path = Json::string(&format!("/{name}"));
    let mut fields = std::mem::take(&mut call.fields).into_fields();
    fields.retain(|(known, _)| known != "path");
    fields.push((Cow::Borrowed("path"), path));
    call.fields = Object::Parsed(fields);
}
