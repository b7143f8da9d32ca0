import type { Session } from '@supabase/supabase-js'
import { useCallback, useEffect, useState } from 'react'
import type { Identities } from './identities'
import { IdentityList } from './IdentityList'
import { NewIdentity } from './NewIdentity'
import { SignIn } from './SignIn'

/** Signs in, and shows the form and the list. The form keeps what was chosen while an ended session is renewed. */
export function App({ identities }: { identities: Identities }) {
  const { auth } = identities.supabase
  const [session, setSession] = useState<Session | null | undefined>(undefined) // undefined: not known yet
  const [user, setUser] = useState<string | null>(null) // the last one
  const [left, setLeft] = useState(false) // on purpose

  // The server has refused the session: get a new token, as a browser whose clock is wrong may need one, or sign out.
  const end = useCallback(async () => {
    const { error } = await auth.refreshSession()
    if (error && error.name !== 'AuthRetryableFetchError') await auth.signOut({ scope: 'local' })
  }, [auth])

  useEffect(() => {
    const { data } = auth.onAuthStateChange((_event, session) => {
      setSession(session)
      if (session) setUser(session.user.id)
      if (session) setLeft(false)
    })
    // A session that was kept in the browser may have ended meanwhile, or its account may be gone.
    void auth.getUser().then(({ error }) => error?.status === 401 || error?.status === 403 ? end() : undefined)
    return () => { data.subscription.unsubscribe() }
  }, [auth, end])

  const leave = () => {
    setLeft(true)
    setUser(null)
    void auth.signOut({ scope: 'local' })
  }

  if (session === undefined) return <main aria-busy="true" />
  return (
    <>
      <header>
        <h1>Identities</h1>
        {session && <p>{session.user.email} <button className="plain" onClick={leave}>Sign out</button></p>}
      </header>
      <main>
        {!session && <SignIn auth={auth} ended={user !== null && !left} />}
        {user && (
          <div key={user} hidden={!session}>
            <NewIdentity identities={identities} onSessionEnd={end} />
            {session && <IdentityList identities={identities} onSessionEnd={end} />}
          </div>
        )}
      </main>
    </>
  )
}
