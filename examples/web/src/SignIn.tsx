import { useState, type FormEvent } from 'react'
import { refusal, type Identities } from './identities'

type Props = { auth: Identities['supabase']['auth']; ended: boolean }

/** Signs in or up with e-mail and password; a project may ask a new user to confirm the address first. */
export function SignIn({ auth, ended }: Props) {
  const [isNew, setIsNew] = useState(false)
  const [busy, setBusy] = useState(false)
  const [message, setMessage] = useState(ended ? 'Your session has ended; please sign in again.' : '')

  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget)
    const given = { email: form.get('email') as string, password: form.get('password') as string }
    setBusy(true)
    setMessage('')
    const { data, error } = await (isNew ? auth.signUp(given) : auth.signInWithPassword(given))
    if (error) setMessage(refusal(error).message)
    else if (!data.session) setMessage('We have sent you an e-mail; please follow its link, then sign in.')
    setBusy(false)
  }

  return (
    <form className="card narrow" onSubmit={(event) => void submit(event)}>
      <h2>{isNew ? 'Sign up' : 'Sign in'}</h2>
      <label>E-mail <input name="email" type="email" autoComplete="email" required /></label>
      <label>
        Password
        <input name="password" type="password" minLength={6} required autoComplete={isNew ? 'new-password' : 'current-password'} />
      </label>
      <p role="alert">{message}</p>
      <p className="actions">
        <button disabled={busy}>{isNew ? 'Sign up' : 'Sign in'}</button>
        <button type="button" className="plain" onClick={() => { setIsNew(!isNew); setMessage('') }}>
          {isNew ? 'I have an account' : 'I am new here'}
        </button>
      </p>
    </form>
  )
}
