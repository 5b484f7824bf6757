//! Custom attributes: which exist, their types, and the conversion of values to these types.

mod catalogue;
mod convert;

pub(super) use catalogue::{Attribute, AttributeOwner, AttributeState, Catalogue, Creation};
pub(super) use convert::{convert_in, moment, overflows};

pub use convert::{Cardinality, ConversionError, ValueType, convert};
