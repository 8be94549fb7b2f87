-- Changes have numbers, which the database itself gives: whatever program writes, and whatever the clock says, an edge that knows
-- the last number finds what came after it.

-- The number of the last change of the user that matters to sessions, and of the last that ended them. 0 is none since
-- the user was made.
ALTER TABLE users ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN ended_by INTEGER NOT NULL DEFAULT 0;

-- One row: the number of the directory's last change. It never falls, not even when rows are deleted.
CREATE TABLE changes (one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL) STRICT;

-- Users whose rows are gone, while tokens of theirs may live.
CREATE TABLE deleted_users (id TEXT NOT NULL PRIMARY KEY, change INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- What a version before this one wrote: each user who was changed after being made has a number, in the order of the changes.
UPDATE users SET change = ranked.number
    FROM (SELECT id, row_number() OVER (ORDER BY updated_at, id) AS number FROM users
          WHERE updated_at <> created_at OR disabled = 1 OR ended_before > 0) AS ranked
    WHERE ranked.id = users.id;
UPDATE users SET ended_by = change WHERE disabled = 1 OR ended_before > 0;
INSERT INTO changes VALUES (1, (SELECT coalesce(max(change), 0) FROM users));
CREATE INDEX users_by_number ON users (change);

-- A new password that is only hashed anew at a login (password_hash, updated_at) is no change.
CREATE TRIGGER user_changed AFTER UPDATE OF id, name, email, disabled ON users BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes),
                     ended_by = iif(NEW.disabled, (SELECT last FROM changes), ended_by)
        WHERE id = NEW.id;
END;
-- Whatever it is set to: two ends may come in one millisecond, or the clock may have been put back.
CREATE TRIGGER user_ended AFTER UPDATE OF ended_before ON users BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes), ended_by = (SELECT last FROM changes) WHERE id = NEW.id;
END;
CREATE TRIGGER user_made AFTER INSERT ON users BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes), ended_by = (SELECT last FROM changes) WHERE id = NEW.id;
    DELETE FROM deleted_users WHERE id = NEW.id;
END;
CREATE TRIGGER user_deleted AFTER DELETE ON users BEGIN
    UPDATE changes SET last = last + 1;
    INSERT OR REPLACE INTO deleted_users VALUES (OLD.id, (SELECT last FROM changes));
END;

CREATE TRIGGER service_given AFTER INSERT ON user_services BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = NEW.user_id;
END;
CREATE TRIGGER service_taken AFTER DELETE ON user_services BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = OLD.user_id;
END;
CREATE TRIGGER service_changed AFTER UPDATE ON user_services BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = NEW.user_id;
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = OLD.user_id;
END;
CREATE TRIGGER role_given AFTER INSERT ON user_roles BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = NEW.user_id;
END;
CREATE TRIGGER role_taken AFTER DELETE ON user_roles BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = OLD.user_id;
END;
CREATE TRIGGER role_changed AFTER UPDATE ON user_roles BEGIN
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = NEW.user_id;
    UPDATE changes SET last = last + 1;
    UPDATE users SET change = (SELECT last FROM changes) WHERE id = OLD.user_id;
END;
