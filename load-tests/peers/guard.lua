-- What sentry-edge does for each request, as lean as Lua in nginx can: HMAC by OpenSSL through the FFI, and one round
-- trip to memcached that finds and touches the session. Libraries (lua-resty-jwt, lua-resty-memcached) would do more.
local ffi = require "ffi"
local cjson = require "cjson.safe"
local base64 = require "ngx.base64"

ffi.cdef [[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *md, const void *key, int key_length, const unsigned char *data, size_t length,
                    unsigned char *mac, unsigned int *mac_length);
int CRYPTO_memcmp(const void *a, const void *b, size_t length);
]]

local mac = ffi.new("unsigned char[32]")
local mac_length = ffi.new("unsigned int[1]")
local settings
local guard = {}

function guard.configure(values)
    settings = values
end

local function verified(token)
    local signed, signature = token:match("^([%w_-]+%.[%w_-]+)%.([%w_-]+)$")
    if not signed then return nil end
    local shown = base64.decode_base64url(signature)
    local header = cjson.decode(base64.decode_base64url(signed:match("^[^.]+")) or "")
    if not shown or #shown ~= 32 or not header or header.alg ~= "HS256" then return nil end
    ffi.C.HMAC(ffi.C.EVP_sha256(), settings.secret, #settings.secret, signed, #signed, mac, mac_length)
    if ffi.C.CRYPTO_memcmp(mac, shown, 32) ~= 0 then return nil end
    local claims = cjson.decode(base64.decode_base64url(signed:match("%.(.+)$")) or "")
    local now = ngx.time()
    if not claims or claims.aud ~= "iqueue" or claims.exp <= now or claims.nbf > now then return nil end
    return claims
end

-- 200 when it lives, 401 when it does not, 503 when memcached does not say.
local function session(id)
    local socket = ngx.socket.tcp()
    socket:settimeouts(1000, 1000, 1000)
    if not socket:connect("127.0.0.1", settings.memcached) then return 503 end
    if not socket:send("mg session:" .. id .. " v T" .. settings.idle .. "\r\n") then return 503 end
    local line = socket:receive("*l")
    if not line then return 503 end
    local status = 401
    local length = line:match("^VA (%d+)")
    if length then
        if not socket:receive(tonumber(length) + 2) then return 503 end
        status = 200
    end
    socket:setkeepalive(300000, 128)
    return status
end

function guard.check()
    local token = ngx.var[settings.cookie]
    local claims = token and verified(token)
    if not claims then return ngx.exit(401) end
    local status = session(claims.sid)
    if status ~= 200 then return ngx.exit(status) end
    ngx.req.set_header("X-Forwarded-User", claims.name)
    ngx.req.set_header("X-Forwarded-Groups", table.concat(claims.roles, ","))
end

return guard
