CREATE TRIGGER distrust_ids BEFORE INSERT OR UPDATE OF mongo_id, event_timestamp ON reading_analytics
    FOR EACH STATEMENT EXECUTE FUNCTION distrust_ids('reading_ids_version');
