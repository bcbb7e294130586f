//! Roles, and sets of them.

use std::fmt;
use std::str::FromStr;

/// What a token may be used for. Each route names the roles that may use it; [`Role::Operator`] may use all of the staff's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes orders and reports them ready.
    Barista,
    /// Reports the events of its own deliveries.
    Drone,
    /// Loads manifests, assigns packages, and updates them for any driver.
    Dispatcher,
    /// Updates their own packages.
    Driver,
    /// Reports couriers' and orders' events, and reads the directory.
    CourierFeed,
    Operator,
    /// Reads metrics.
    Scraper,
    /// Sends packages as itself.
    Sender,
    /// Sets and reads the preferences of one recipient.
    RecipientService,
}

impl Role {
    pub const ALL: [Self; 9] = [
        Self::Barista,
        Self::Drone,
        Self::Dispatcher,
        Self::Driver,
        Self::CourierFeed,
        Self::Operator,
        Self::Scraper,
        Self::Sender,
        Self::RecipientService,
    ];

    /// Its name in token files, on the command line and in API descriptions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Barista => "barista",
            Self::Drone => "drone",
            Self::Dispatcher => "dispatcher",
            Self::Driver => "driver",
            Self::CourierFeed => "courier-feed",
            Self::Operator => "operator",
            Self::Scraper => "scraper",
            Self::Sender => "sender",
            Self::RecipientService => "recipient-service",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{name:?} is no role; roles are {names}")
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u16);

impl Roles {
    #[must_use]
    pub fn and(self, role: Role) -> Self {
        Self(self.0 | Self::from(role).0)
    }

    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, role: Role) -> bool {
        !self.common(role.into()).is_empty()
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .into_iter()
            .filter(move |&role| self.contains(role))
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(1 << role as u16)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::default(), Self::and)
    }
}

/// Their names, separated by spaces: as in `scope` (RFC 6750).
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Role::name).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_roles_that_were_put_into_it() {
        for one in Role::ALL {
            assert_eq!(one.name().parse(), Ok(one));
            for other in Role::ALL {
                assert_eq!(Roles::from(one).contains(other), one == other);
            }
        }
        let both = Roles::from_iter([Role::Scraper, Role::Barista]);
        assert_eq!(both.to_string(), "barista scraper");
        assert_eq!(both.common(Role::Scraper.into()), Role::Scraper.into());
        assert!(both.common(Role::Drone.into()).is_empty());
        assert!("Barista".parse::<Role>().is_err());
    }
}
