//! The `settings!` macro: one declaration of a role's settings.

/// Declares a struct of settings. Each field has help text (doc comments), a flag name, a type and a default;
/// `[hidden "name"]` works but is not shown; `[..]` flattens a shared group.
///
/// ```
/// settings::settings! {
///     /// Keeps what others forget.
///     pub struct Settings {
///         /// How many copies are kept, from 1 to 5.
///         ["copies"] copies: u32 = 3;
///         /// How long they are kept; 0 keeps them for good.
///         ["keep.for"] keep: settings::Span = settings::Span::from_days(15);
///         [..] log: settings::Log;
///     }
/// }
///
/// impl Settings {
///     // Optional; called after loading.
///     fn validate(&self) -> Result<(), String> {
///         if self.copies == 0 { Err("--copies must be 1 or more".to_owned()) } else { Ok(()) }
///     }
/// }
///
/// let command = settings::with_flags::<Settings>(clap::Command::new("keeper"));
/// let matches = command.try_get_matches_from(["keeper", "--keep.for=2h"]).unwrap();
/// let loaded = settings::load::<Settings>(&matches, None).unwrap();
/// assert_eq!((loaded.settings.copies, loaded.settings.keep.ms()), (3, 7_200_000));
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:expr])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:expr])*
                [$($key:tt)+] $field:ident : $ty:ty $(= $default:expr)? ;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $help])* pub $field: $ty, )*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $crate::__setting!(default [$($key)+] $ty $(, $default)?), )* }
            }
        }

        impl $crate::Load for $name {
            fn about() -> ::std::string::String {
                $crate::__prose(&[$($about),*])
            }

            #[allow(unused_variables)]
            fn describe(out: &mut ::std::vec::Vec<$crate::Setting>) {
                let default = <Self as ::std::default::Default>::default();
                let about = <Self as $crate::Load>::about();
                $( $crate::__setting!(describe [$($key)+] $ty, out, &[$($help),*], &default.$field, &about); )*
            }

            #[allow(unused_variables)]
            fn put(
                &mut self,
                name: &str,
                texts: &[::std::string::String],
            ) -> ::std::option::Option<::std::result::Result<(), ::std::string::String>> {
                $( $crate::__setting!(put [$($key)+] $ty, name, texts, self.$field); )*
                ::std::option::Option::None
            }

            #[allow(unused_variables)]
            fn texts(
                &self,
                name: &str,
            ) -> ::std::option::Option<::std::vec::Vec<::std::string::String>> {
                $( $crate::__setting!(texts [$($key)+] $ty, name, self.$field); )*
                ::std::option::Option::None
            }

            fn check(&self) -> ::std::result::Result<(), ::std::string::String> {
                #[allow(unused_imports)]
                use $crate::ValidByDefault as _;
                $( $crate::__setting!(check [$($key)+] $ty, self.$field); )*
                self.validate()
            }
        }
    };
}

/// One field of [`settings!`], by purpose and kind of key.
#[doc(hidden)]
#[macro_export]
macro_rules! __setting {
    (default [..] $ty:ty) => { <$ty as ::std::default::Default>::default() };
    (default [$($key:tt)+] $ty:ty, $default:expr) => { $default };

    (describe [..] $ty:ty, $out:expr, $help:expr, $default:expr, $about:expr) => {
        <$ty as $crate::Load>::describe($out)
    };
    (describe [hidden $name:literal] $ty:ty, $out:expr, $help:expr, $default:expr, $about:expr) => {
        $out.push($crate::Setting::of::<$ty>($name, $help, $default, true, $about))
    };
    (describe [$name:literal] $ty:ty, $out:expr, $help:expr, $default:expr, $about:expr) => {
        $out.push($crate::Setting::of::<$ty>($name, $help, $default, false, $about))
    };

    (put [..] $ty:ty, $given:expr, $texts:expr, $field:expr) => {
        if let ::std::option::Option::Some(done) = $crate::Load::put(&mut $field, $given, $texts) {
            return ::std::option::Option::Some(done);
        }
    };
    (put [hidden $name:literal] $ty:ty, $given:expr, $texts:expr, $field:expr) => {
        $crate::__setting!(put [$name] $ty, $given, $texts, $field)
    };
    (put [$name:literal] $ty:ty, $given:expr, $texts:expr, $field:expr) => {
        if $given == $name {
            return ::std::option::Option::Some(
                <$ty as $crate::Value>::read($texts).map(|value| $field = value),
            );
        }
    };

    (texts [..] $ty:ty, $given:expr, $field:expr) => {
        if let ::std::option::Option::Some(texts) = $crate::Load::texts(&$field, $given) {
            return ::std::option::Option::Some(texts);
        }
    };
    (texts [hidden $name:literal] $ty:ty, $given:expr, $field:expr) => {
        $crate::__setting!(texts [$name] $ty, $given, $field)
    };
    (texts [$name:literal] $ty:ty, $given:expr, $field:expr) => {
        if $given == $name {
            return ::std::option::Option::Some(<$ty as $crate::Value>::texts(&$field));
        }
    };

    (check [..] $ty:ty, $field:expr) => { $crate::Load::check(&$field)? };
    (check [$($key:tt)+] $ty:ty, $field:expr) => {};
}
